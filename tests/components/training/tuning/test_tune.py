"""A study on sixteen items, with real trainings."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pyarrow.parquet as pq
import pytest

from components.training.settings import TrainSettings
from components.training.train import train
from components.training.tuning import worker as module
from components.training.tuning.page import write_study
from components.training.tuning.results import TuneResults, read_results, write_config
from components.training.tuning.settings import TuneSettings
from components.training.tuning.space import Space
from components.training.tuning.study import (
    KILLED,
    MEASURED,
    OUT_OF_TIME,
    PRUNED,
    open_study,
    outcome_of,
    study_file,
)
from components.training.tuning.view import hide_test
from components.training.tuning.worker import tune, value_of
from refit.errors import DataValidationError, RefitError, UsageError
from refit.feature_tables import examples_file
from refit.features import FeaturesManifest
from refit.files import read_json
from refit.model import Epoch

TUNING = TuneSettings.parse(
    {
        "minutes": 5,
        "trials": 4,
        "full_trials": 2,
        "random_trials": 3,
        "only": [
            "training.learning_rate",
            "training.id_embedding",
            "training.id_l2",
            "features.spec.history_length",
        ],
        "space": {"features.spec.history_length": {"values": [1, 2, 3]}},
    }
)


@pytest.fixture(scope="module")
def own(small: TrainSettings) -> TrainSettings:
    return small.model_copy(update={"recall_at": 2, "max_epochs": 2, "learning_rate": 0.0001})


@pytest.fixture(scope="module")
def tuned(make_features, own: TrainSettings, tmp_path_factory: pytest.TempPathFactory):
    """A study of features whose test split nobody could read."""
    base = tmp_path_factory.mktemp("tuned")
    broken = make_features(base / "features")
    for split in ("test", "requests"):
        (broken / examples_file(split)).write_bytes(b"not a table")
    key = tune(TUNING, own, broken, str(base / "studies"))
    return base, key


def trials_of(place: Path, key: str):
    return open_study(str(place), key).get_trials()


def test_the_first_trial_measures_the_config_as_training_does_and_reads_no_test_split(
    features, own, tuned, tmp_path
):
    base, key = tuned
    first, *others = trials_of(base / "studies", key)
    search = own.model_copy(update={"final_fit": False, "in_process_tower": False})
    model = train(search, features, tmp_path / "model")
    assert first.user_attrs["epochs"] == [epoch.recall for epoch in model.epochs]
    assert first.value == max(epoch.recall for epoch in model.epochs)
    assert first.user_attrs["own"]
    assert first.user_attrs["values"] == {
        "training.learning_rate": 0.0001,
        "training.id_embedding": "always",
        "features.spec.history_length": 3,
        "training.id_l2": own.id_l2,
    }
    assert len(others) == 3
    assert not any("own" in trial.user_attrs for trial in others)
    assert {outcome_of(trial) for trial in others} <= {MEASURED, PRUNED}
    assert {path.name for path in (base / "studies").iterdir()} == {
        f"{key}.sqlite",
        f"{key}.0.lock",
    }


def test_the_same_study_continues_and_draws_nothing_twice(features, own, tuned, tmp_path):
    base, key = tuned
    before = trials_of(base / "studies", key)
    more = TUNING.model_copy(update={"trials": 5, "minutes": 6.0})
    assert tune(more, own, features, str(base / "studies")) == key
    after = trials_of(base / "studies", key)
    assert [t.params for t in after[:4]] == [t.params for t in before]
    assert len(after) == 5
    rates = [t.params["training.learning_rate"] for t in after]
    assert len(set(rates)) == 5
    with_ids = [t for t in after if t.user_attrs["values"]["training.id_embedding"] == "always"]
    assert all(("training.id_l2" in t.params) == (t in with_ids) for t in after)


def test_results_say_what_differs_from_the_config(features, own, tuned):
    base, key = tuned
    results = read_results(TUNING, own, features, str(base / "studies"), key)
    assert results.own.recall == results.trials[0].recall
    best = max(t.recall for t in results.trials if t.outcome == MEASURED)
    assert results.best.recall == best
    assert results.n_examples == 48
    assert results.standard_error == pytest.approx((best * (1 - best) / 48) ** 0.5)
    for name, value in results.changes.items():
        assert value != results.before[name]
    assert f"recall@2 of {best:.4f}" in write_config(results)


def test_the_page_stands_alone_and_names_every_trial(features, own, tuned, tmp_path):
    base, key = tuned
    results = read_results(TUNING, own, features, str(base / "studies"), key)
    write_study(tmp_path / "study", results)
    page = (tmp_path / "study" / "page.html").read_text()
    assert 'src="data:image/png' in page
    assert 'href="' not in page
    assert page.count("<tr") >= len(results.trials)
    names = {path.name for path in (tmp_path / "study" / "pictures").iterdir()}
    assert names >= {"history.png", "parallel.png", "cost.png"}
    assert read_json(tmp_path / "study" / "tuning.json")["study"] == key


def test_a_view_ends_with_validation(features, tmp_path):
    view = hide_test(features, tmp_path / "view", 2)
    names = {path.relative_to(view).as_posix() for path in view.rglob("*") if path.is_file()}
    last = int(pq.read_table(features / examples_file("validation"))["snapshot"].to_numpy().max())
    assert names == {
        "features.json",
        "items.parquet",
        "examples/train.parquet",
        "examples/validation.parquet",
        *(f"snapshots/{i}.parquet" for i in range(last + 1)),
    }
    assert FeaturesManifest.read(view).spec.history_length == 2
    with pytest.raises(UsageError, match="up to that of the config, 3"):
        hide_test(features, tmp_path / "long", 4)


def test_the_budget_ends_a_trial_after_its_epoch(features, own, tmp_path):
    tiny = TUNING.model_copy(update={"minutes": 0.01})
    key = tune(tiny, own, features, str(tmp_path / "studies"))
    (only,) = trials_of(tmp_path / "studies", key)
    assert outcome_of(only) == OUT_OF_TIME
    assert len(only.user_attrs["epochs"]) == 1
    with pytest.raises(RefitError, match=r"raise tuning\.minutes"):
        read_results(tiny, own, features, str(tmp_path / "studies"), key)
    tune(tiny, own, features, str(tmp_path / "studies"))
    assert len(trials_of(tmp_path / "studies", key)) == 1  # its time is spent


def test_a_failed_trial_is_kept_with_its_reason(features, own, tmp_path, monkeypatch):
    measured = module.measure_epochs

    def fail_on_other(settings, *arguments):
        if settings.learning_rate != own.learning_rate:
            raise RefitError("the loss is not a number")
        return measured(settings, *arguments)

    monkeypatch.setattr(module, "measure_epochs", fail_on_other)
    tuning = TUNING.model_copy(update={"trials": 3, "only": ("training.learning_rate",)})
    key = tune(tuning, own, features, str(tmp_path / "studies"))
    results = read_results(tuning, own, features, str(tmp_path / "studies"), key)
    assert results.counts == {"measured": 1, "failed": 2}
    assert results.trials[1].reason == "the loss is not a number"
    assert results.best.own
    assert results.changes == {}
    assert "Nothing was better" in write_config(results)
    assert results.no_importance.endswith("not 1")
    write_study(tmp_path / "study", results)


def test_a_config_that_cannot_be_trained_ends_the_study(make_features, own, tmp_path):
    empty = make_features(tmp_path / "features")
    table = pq.read_table(empty / examples_file("validation"))
    pq.write_table(table.slice(0, 0), empty / examples_file("validation"))
    with pytest.raises(DataValidationError, match="no validation examples"):
        tune(TUNING, own, empty, str(tmp_path / "studies"))


def test_a_worst_trial_is_stopped_early(features, own, tmp_path):
    """By the study's pruner: below the median of two that were measured."""
    study = open_study(str(tmp_path), "0" * 16)
    study.pruner = optuna.pruners.MedianPruner(n_startup_trials=2, n_warmup_steps=0)
    for recalls in ([0.4, 0.5], [0.6, 0.7]):
        trial = study.ask()
        for step, recall in enumerate(recalls, 1):
            trial.report(recall, step)
        study.tell(trial, recalls[-1])
    budget = module._Budget(60.0)
    budget.begin(0.0)
    for recall, goes_on in ((0.45, False), (0.55, True)):
        watch = module._Watch(study.ask(), budget, time.monotonic())
        watch.n_epochs = 2
        assert watch([epoch(1, recall)], True) is goes_on
        assert watch.outcome == (MEASURED if goes_on else PRUNED)
    watch = module._Watch(study.ask(), budget, time.monotonic())
    watch.n_epochs = 1
    assert watch([epoch(1, 0.0)], True)  # it has been measured to its end


def test_what_counts_is_the_epoch_that_is_exported():
    epochs = [epoch(1, 0.3), epoch(2, 0.5), epoch(3, 0.4)]
    assert value_of(TrainSettings(), epochs) == 0.5
    assert value_of(TrainSettings(choose_epochs=False), epochs) == 0.4


def epoch(number: int, recall: float) -> Epoch:
    return Epoch(number=number, loss=1.0, recall=recall, seconds=1.0, examples=10)


def test_two_processes_do_not_share_a_worker(features, own, tmp_path):
    manifest = FeaturesManifest.read(features)
    view = hide_test(features, tmp_path / "view")
    key = module.study_key(Space.of(TUNING, own, manifest), TUNING, view)
    with (
        module.only_worker(str(tmp_path / "studies"), key, "0"),
        pytest.raises(UsageError, match="another process tunes the same"),
    ):
        tune(TUNING, own, features, str(tmp_path / "studies"))


KILLED_WORKER = """
import sys, time
from pathlib import Path
from components.training.settings import TrainSettings
from components.training.tuning import worker
from components.training.tuning.settings import TuneSettings

tuning, own, features, base = sys.argv[1:]
call = worker._Watch.__call__

def slow(self, epochs, just_trained):
    goes_on = call(self, epochs, just_trained)
    if self._trial.number == 1:
        print("first epoch of trial 1", flush=True)
        time.sleep(100)
    return goes_on

worker._Watch.__call__ = slow
worker.tune(TuneSettings.parse_json(tuning), TrainSettings.parse_json(own), Path(features),
            base + "/studies", checkpoint=Path(base) / "checkpoints")
"""


def test_a_killed_worker_goes_on_in_the_middle_of_its_trial(features, own, tmp_path):
    tuning = TUNING.model_copy(update={"trials": 3})
    process = subprocess.Popen(
        [
            sys.executable, "-c", KILLED_WORKER, tuning.to_json(), own.to_json(), str(features),
            str(tmp_path),
        ],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[4])},
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "first epoch of trial 1\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    key = next((tmp_path / "studies").glob("*.sqlite")).stem
    assert study_file(str(tmp_path / "studies"), key).is_file()
    assert [outcome_of(t) for t in trials_of(tmp_path / "studies", key)] == [MEASURED, "running"]
    place = str(tmp_path / "studies")
    tune(tuning, own, features, place, checkpoint=tmp_path / "checkpoints")
    first, killed, again, last = trials_of(tmp_path / "studies", key)
    assert outcome_of(killed) == KILLED
    assert again.params == killed.params
    assert (
        again.user_attrs["epochs"][: len(killed.user_attrs["epochs"])]
        == (killed.user_attrs["epochs"])
    )
    assert "first" not in again.user_attrs, "its first epoch was not trained again"
    results = read_results(tuning, own, features, place, key)
    assert [t.number for t in results.trials] == [first.number, again.number, last.number]


def test_the_chosen_settings_are_yaml_with_what_they_were():
    trials = [
        {"number": 0, "own": True, "outcome": MEASURED, "recall": 0.4, "values": {}},
        {"number": 1, "own": False, "outcome": MEASURED, "recall": 0.5, "values": {}},
        {"number": 2, "own": False, "outcome": PRUNED, "recall": 0.9, "values": {}},
    ]
    results = TuneResults.parse(
        {
            "study": "0" * 16,
            "recall_at": 10,
            "n_examples": 100,
            "minutes": 3,
            "ranges": {},
            "trials": [{**trial, "epochs": [], "seconds": 1} for trial in trials],
            "changes": {
                "training.learning_rate": 1e-06,
                "training.id_embedding": "never",
                "features.spec.history_length": 5,
            },
            "before": {
                "training.learning_rate": 0.003,
                "training.id_embedding": "always",
                "features.spec.history_length": 20,
            },
        }
    )
    assert write_config(results).splitlines() == [
        "# Chosen by refit tune: recall@10 of 0.5000 on the validation examples;",
        "# the config's own settings reach 0.4000. The standard error of one recall is 0.0500",
        "# (100 examples). The best of 3 trials is partly luck: the gate judges it on the test "
        "days.",
        "features:",
        "  spec:",
        "    history_length: 5  # was 20",
        "training:",
        '  id_embedding: "never"  # was always',
        "  learning_rate: 1e-06  # was 0.003",
    ]


def test_two_workers_share_a_study_in_postgresql(features, own, postgres):
    place = postgres.empty()
    tuning = TUNING.model_copy(update={"trials": 2, "workers": 2, "storage": place})
    keys = {tune(tuning, own, features, place, worker) for worker in ("0", "1")}
    (key,) = keys
    more = tuning.model_copy(update={"trials": 3})
    assert tune(more, own, features, place, "1") == key
    trials = open_study(place, key).get_trials()
    assert [trial.user_attrs["worker"] for trial in trials] == ["0", "0", "1"]
    assert read_results(more, own, features, place, key).own.number == 0
