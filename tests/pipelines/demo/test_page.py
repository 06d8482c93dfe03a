import pytest

from pipelines.demo.page import choose_subjects, write_page


def result(day, subject, value, state="ok"):
    return {"day": day, "subject": subject, "value": value, "threshold": 0.1, "state": state}


@pytest.fixture
def summary():
    days = [
        {
            "day": day,
            "rate": 0.2,
            "low": 0.15,
            "high": 0.25,
            "truth": {"chance_of_sale": 0.2, "perfect_chance": 0.5},
        }
        for day in (34, 35)
    ]
    return {
        "title": "A <b>title</b>",
        "what": "what was done",
        "unit": "week",
        "quality_means": "answers that led to a purchase",
        "outcome_means": "a simulated purchase",
        "quality": {"before": {"rate": 0.2, "low": 0.1, "high": 0.3, "n": 500}, "after": None},
        "requests": {"sent": 500, "failed": 1, "fallbacks": 2},
        "days": days,
        "marks": [{"day": 35, "kind": "alert", "label": "alert"}],
        "drift": [
            result(34, "query-embedding · mean_shift", 0.05),
            result(35, "input:items.brand · null_share", 0.5, "drift"),
            result(35, "input:items.size · null_share", 0.0),
        ],
        "timeline": [{"day": 35, "text": "An alert.", "link": "alert.html", "link_text": "Page"}],
        "bundles": [
            {
                "name": "the first training",
                "bundle_id": "b1",
                "passed": False,
                "reasons": ["hit rate at 10 is 0.1, at least 0.2 is needed"],
                "checks": [
                    {"name": "hit rate", "measured": None, "at_least": 0.2, "at_most": None}
                ],
                "report": "verdict-1.html",
            }
        ],
        "alerts": [{"alert_id": "a1", "page": "alert.html", "text": "brand moved"}],
        "samples": [{"context": "{}", "items": ["dress", "coat"]}],
        "slates": [
            {
                "name": "as served",
                "coverage": 0.385,
                "head_share": 0.284,
                "repetition": None,
                "chance_of_sale": 0.2,
                "score": 8.0,
            },
            {
                "name": "explore",
                "coverage": 0.5,
                "head_share": 0.2,
                "repetition": 0.19,
                "chance_of_sale": 0.19,
                "score": 7.5,
            },
        ],
        "seconds": {"train": 1.0},
        "evidently": "evidently ui --workspace w",
        "note": "Everything here is simulated.",
    }


def test_the_page_shows_what_happened(summary, tmp_path):
    write_page(summary, tmp_path / "index.html")
    page = (tmp_path / "index.html").read_text("utf-8")
    assert "A &lt;b&gt;title&lt;/b&gt;" in page
    assert "refused" in page
    assert "<b>Week 35</b>" in page
    assert "hit rate at 10 is 0.1, at least 0.2 is needed" in page
    assert "500</b><span>requests sent: 1 failed, 2 answered by the fallback" in page
    assert '>38.5%</td><td class="number">28.4%</td><td class="number">–</td>' in page
    assert "7.50 (-0.50)" in page
    assert "19.0% (-1.0)" in page
    assert page.count("data:image/png;base64,") == 2
    assert "http" not in page.replace("http-equiv", "")


def test_a_refused_first_model_still_gets_its_page(summary, tmp_path):
    summary |= {"days": [], "drift": [], "marks": [], "alerts": [], "samples": [], "quality": {}}
    summary["slates"] = []
    write_page(summary, tmp_path / "index.html")
    assert "Nothing was measured." in (tmp_path / "index.html").read_text("utf-8")


def test_embeddings_and_all_that_drifted_are_plotted(summary):
    assert choose_subjects(summary["drift"]) == [
        "query-embedding · mean_shift",
        "input:items.brand · null_share",
    ]
