from datetime import datetime, timedelta

import pytest

from serving.exposure import ShownAnswer, Spread, answer_again, measure_spread, try_slates
from serving.stage_settings import SlateSettings
from tests.serving import tiny
from tests.serving.tiny import AS_OF, NOW, ids


def shown(user, item_ids, score):
    return ShownAnswer(user, AS_OF, {}, item_ids, score)


def test_the_spread_of_answers_by_hand():
    answers = [
        shown("ann", ["a", "b"], 1.0),
        shown("bea", ["a", "c"], 2.0),
        shown("ann", ["a", "d"], 3.0),
        shown(None, ["a", "b"], 2.0),
        shown("ann", ["d", "e"], 2.0),
    ]
    # Ten slots, four of them with item a; of ann's four later ones, a and d come again.
    assert measure_spread(answers, 20) == Spread(5 / 20, 4 / 10, 2 / 4, 2.0)
    assert measure_spread(answers, 300).head_share == pytest.approx((4 + 2 + 2) / 10)
    assert measure_spread([], 20) == Spread(None, None, None, None)


def test_other_slates_are_tried_on_the_answers_of_a_log(serve, bundle, tmp_path):
    recommender = serve()
    answers = []
    for number in range(60):
        time = (datetime.fromisoformat(NOW) + timedelta(minutes=number)).isoformat()
        user = f"user-{number % 20}"
        answers.append((user, recommender.recommend({"user_id": user, "time": time})))
    recommender.recommend({"personalised": False, "time": NOW})
    recommender.close()
    slates = {
        "served": SlateSettings(),
        "explored": SlateSettings.parse({"exploration": {"share": 0.3, "under_shown": 0.5}}),
        "diverse": SlateSettings(diversity=0.8),
    }
    found = try_slates(bundle, tmp_path / "log", slates)
    scores = [sum(item["score"] for item in answer["items"]) / 10 for _, answer in answers]
    pairs = zip(answers, scores, strict=True)
    shown_then = [shown(user, ids(answer), score) for (user, answer), score in pairs]
    served = measure_spread(shown_then, tiny.N_LIVE)
    assert found["served"].coverage == served.coverage
    assert found["served"].head_share == served.head_share
    assert found["served"].repetition == served.repetition
    assert found["served"].score == pytest.approx(served.score, abs=1e-5)
    assert found["explored"].coverage > served.coverage
    assert found["explored"].repetition < served.repetition
    assert found["explored"].score < served.score
    assert found["diverse"].score <= served.score
    gone = dict.fromkeys(ids(answers[0][1]), AS_OF)
    without = answer_again(bundle, tmp_path / "log", slates, gone_at=gone)
    assert not {i for one in without["explored"] for i in one.item_ids} & gone.keys()
    assert try_slates(bundle, tmp_path / "log", slates, until=AS_OF)["served"].coverage is None
    assert try_slates(bundle, tmp_path / "none", slates)["served"].coverage is None
