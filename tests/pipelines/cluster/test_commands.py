"""The commands on a cluster, against a stand-in for the Kubeflow Pipelines API."""

import json

import pytest
import yaml

DONE = (
    ("root", "SUCCEEDED", ""),
    ("find-start-driver", "SUCCEEDED", "p0"),
    ("find-start", "SUCCEEDED", "p1"),
    ("executor", "SUCCEEDED", ""),
    ("train-towers", "SUCCEEDED", "p2"),
    ("gate", "SUCCEEDED", "p3"),
    ("condition-1", "SUCCEEDED", ""),
    ("deploy-bundle", "SUCCEEDED", "p4"),
)
INGEST_LOG = """time="2026-05-01T00:00:00.000Z" level=info msg="capturing logs" argo=true
I0501 00:00:00.000001 1 launcher_v2.go:90] launching
00:00:01 [ingest] started
00:00:02 [ingest] error: the source breaks the contract:
  events: column 'event_time' is missing
I0501 00:00:03.000001 1 launcher_v2.go:151] publish success.
F0501 00:00:03.000002 1 main.go:49] failed to execute component: exit status 4
time="2026-05-01T00:00:03.380Z" level=info msg="sub-process exited" argo=true error="<nil>"
Error: exit status 1
"""


@pytest.fixture
def on_cluster(refit, cluster):
    """The ``refit`` command with --cluster."""
    return lambda *words: refit(*words, "--cluster", cluster)


@pytest.fixture
def experiment(backend):
    return backend.add("experiments", display_name="refit")


def test_submit_uploads_once_and_names_the_version_by_content(on_cluster, backend):
    first = on_cluster("submit", "--json")
    assert first.code == 0, first.err
    assert on_cluster("submit").code == 0
    assert backend.named("pipelines") == ["continuous-training"]
    assert backend.named("experiments") == ["refit"]
    (version,) = backend.named("versions")
    assert len(backend.uploads) == 1
    assert len(version) == 16
    runs = list(backend.kept["runs"].values())
    assert len(runs) == 2
    assert runs[0]["service_account"] == "trainer"
    assert runs[0]["run_id"] == json.loads(first.out)["run_id"]
    parameters = runs[0]["runtime_config"]["parameters"]
    assert parameters["registry"] == "s3://refit/registry"
    assert parameters["champion"] == parameters["data_fingerprint"] == ""
    assert json.loads(parameters["deployment"])["target"] == "seldon"
    on_cluster("submit", "--no-cache")
    assert len(backend.uploads) == 2  # other content, other version


DATABASE = "postgresql+psycopg://refit@host/studies"


def test_workers_of_a_study_share_a_database(on_cluster, backend):
    """The cluster of these tests has no claim for checkpoints."""
    alone = on_cluster("submit", "tuning")
    assert (alone.code, "a study would be lost with its pod" in alone.err) == (2, True)
    several = on_cluster("submit", "tuning", "--set", "tuning.workers=3")
    assert (several.code, "3 workers need a database" in several.err) == (2, True)
    changes = ("--set", "tuning.workers=3", "--set", f"tuning.storage={DATABASE}")
    done = on_cluster("submit", "tuning", *changes)
    assert done.code == 0, done.err
    (run,) = backend.kept["runs"].values()
    parameters = run["runtime_config"]["parameters"]
    assert parameters["workers"] == ["0", "1", "2"]
    assert parameters["studies"] == DATABASE


def test_a_backend_that_knows_no_names_gets_none(on_cluster, backend):
    backend.knows_names = False
    assert on_cluster("submit").code == 0
    assert backend.named("pipelines") == ["continuous-training"]


def test_a_run_of_a_name_is_made_once(on_cluster, backend):
    for words in ("started run nightly", "found run nightly"):
        said = on_cluster("submit", "--run-id", "nightly")
        assert (said.code, words in said.err) == (0, True)
    assert backend.named("runs") == ["nightly"]


def test_of_two_at_once_one_stays(on_cluster, backend, experiment):
    """Somebody else creates the run between our look and our creation."""

    def somebody_else(values):
        backend.before_create = lambda run: None
        backend.add("runs", run_id="theirs", experiment_id=experiment, display_name="nightly")

    backend.before_create = somebody_else
    said = on_cluster("submit", "--run-id", "nightly", "--json")
    assert json.loads(said.out)["run_id"] == "theirs"
    assert list(backend.kept["runs"]) == ["theirs"]


def test_waiting_tells_every_step_and_ends_with_0(on_cluster, backend, experiment):
    backend.add_run("done", "SUCCEEDED", *DONE, experiment_id=experiment)
    said = on_cluster("submit", "--run-id", "done", "--wait")
    assert said.code == 0, said.err
    told = [line.split()[1:] for line in said.err.splitlines() if "succeeded" in line]
    names = ["find_start", "train_towers", "gate", "deploy_bundle"]
    assert told == [*([name, "succeeded"] for name in names), ["run", "succeeded"]]
    assert [row.split("\t")[0] for row in said.out.splitlines()[1:-1]] == names


@pytest.mark.parametrize(("state", "code"), [("FAILED", 4), ("SUCCEEDED", 4)])
def test_a_failing_step_gives_its_error_and_its_code(on_cluster, backend, experiment, state, code):
    """Backend 2.0 takes a run with an exit handler for succeeded: its steps know better."""
    backend.logs["p1"] = INGEST_LOG
    steps = (("find-start", "SUCCEEDED", "p0"), ("ingest-data", "FAILED", "p1"))
    backend.add_run("bad", state, *steps, experiment_id=experiment)
    said = on_cluster("submit", "--run-id", "bad", "--wait")
    assert said.code == code
    *_, error, more, last = said.err.splitlines()
    assert error == "error: step ingest_data failed: the source breaks the contract:"
    assert more == "  events: column 'event_time' is missing"
    assert last == "full log: refit logs bad ingest_data"


@pytest.mark.parametrize("decided", ["refused", "cannot tell"])
def test_a_refusal_is_3_with_the_gates_reasons(on_cluster, backend, experiment, decided):
    backend.logs["g"] = (
        f"10:00:00 [gate] started\n10:00:00 [gate] {decided}\n10:00:00 [gate] too few\n"
    )
    steps = (("evaluate-model", "SUCCEEDED", ""), ("gate", "SUCCEEDED", "g"))
    backend.add_run("weak", "SUCCEEDED", *steps, ("deploy-bundle", "SKIPPED", ""))
    backend.kept["runs"][next(iter(backend.kept["runs"]))]["experiment_id"] = experiment
    said = on_cluster("submit", "--run-id", "weak", "--wait")
    assert said.code == 3
    assert said.err.endswith(f"the gate {decided}, nothing was deployed:\n  too few\n")


@pytest.mark.parametrize(
    ("state", "steps", "words"),
    [
        (
            "FAILED",
            (("train-towers", "FAILED", "gone"),),
            "train_towers of run odd failed; the log",
        ),
        ("FAILED", (("train-towers-driver", "FAILED", ""),), "step train_towers of run odd failed"),
        ("FAILED", (), "failed outside its steps"),
        ("CANCELED", (), "was cancelled"),
    ],
)
def test_whatever_else_ends_badly_is_1(on_cluster, backend, experiment, state, steps, words):
    backend.add_run("odd", state, *steps, experiment_id=experiment)
    said = on_cluster("submit", "--run-id", "odd", "--wait")
    assert said.code == 1
    assert words in said.err


def test_an_api_that_is_away_for_a_moment_is_waited_for(backend):
    from components.kubeflow import Kubeflow, poll_run

    run_id = backend.add_run("slow", "SUCCEEDED")
    backend.away = 2
    looks = list(poll_run(Kubeflow.at(backend.url), run_id, every=0.01, patience=60))
    assert [run.state for run in looks] == ["SUCCEEDED"]


def test_the_end_of_the_last_step_may_be_told_after_the_runs_own(backend):
    from components.kubeflow import MAX_LATE_POLLS, Kubeflow, poll_run
    from pipelines.cluster.runs import raise_for_end

    steps = [step for step in DONE if step[0] != "deploy-bundle"]
    run_id = backend.add_run("late", "SUCCEEDED", *steps, ("deploy-bundle", "RUNNING", "p4"))
    looks = poll_run(Kubeflow.at(backend.url), run_id, every=0.01)
    assert next(looks).is_over
    settled = backend.add_run("late", "SUCCEEDED", *DONE, run_id=run_id)
    assert settled == run_id
    assert len(list(looks)) == 1
    backend.add_run("late", "SUCCEEDED", *steps, ("deploy-bundle", "RUNNING", "p4"), run_id=run_id)
    *_, last = looks = list(poll_run(Kubeflow.at(backend.url), run_id, every=0.01))
    assert len(looks) == MAX_LATE_POLLS
    raise_for_end(last, read=backend.logs.__getitem__)  # it is no refusal


def test_status_logs_and_cancel(on_cluster, backend, experiment):
    for number in range(3):
        backend.add_run(f"run-{number}", "SUCCEEDED", *DONE, experiment_id=experiment)
    left_undone = ("evaluate-model", None, "")
    running = backend.add_run("now", "RUNNING", *DONE[:5], left_undone, experiment_id=experiment)
    backend.logs |= {"p1": "found\n", "p2": "epoch 1"}
    rows = on_cluster("status").out.splitlines()[1:]
    assert rows[0].split("\t")[:2] == ["now", "running"]
    one = json.loads(on_cluster("status", "now", "--json").out)
    states = [(step["step"], step["state"]) for step in one["steps"]]
    assert states[:2] == [("find_start", "SUCCEEDED"), ("train_towers", "SUCCEEDED")]
    assert states[2:] == [("evaluate_model", "SKIPPED")]
    assert one["steps"][0]["seconds"] == 30
    assert on_cluster("status", running).code == 0
    assert on_cluster("logs", "now", "train-towers").out == "epoch 1\n"
    whole = on_cluster("logs", "now")
    assert whole.out == "found\nepoch 1\n"
    assert "--- train_towers (succeeded)" in whole.err
    assert "did not run" in on_cluster("logs", "now", "deploy_bundle").err
    assert "is being cancelled" in on_cluster("cancel", "now").out
    assert backend.kept["runs"][running]["state"] == "CANCELED"
    assert "has ended: canceled" in on_cluster("cancel", "now").out
    missing = on_cluster("status", "nope")
    assert (missing.code, "no run 'nope'" in missing.err) == (2, True)


def test_schedules_are_replaced_by_name(on_cluster, backend):
    words = ("schedule", "drift_monitoring", "--cron")
    assert on_cluster(*words, "0 0 3 * * *").out == "schedule drift_monitoring: 0 0 3 * * *\n"
    assert on_cluster(*words, "0 30 3 * * *").out.endswith("(replaced)\n")
    on_cluster(*words, "0 0 * * * *", "--name", "hourly", "--windows", "2")
    kept = list(backend.kept["recurringruns"].values())
    assert [entry["display_name"] for entry in kept] == ["drift_monitoring", "hourly"]
    assert kept[0]["trigger"] == {"cron_schedule": {"cron": "0 30 3 * * *"}}
    assert (kept[0]["max_concurrency"], kept[0]["no_catchup"]) == ("1", True)
    assert kept[0]["service_account"] == "monitor"
    assert (kept[0]["mode"], kept[1]["runtime_config"]["parameters"]["windows"]) == ("ENABLE", 2)
    listed = on_cluster("schedule", "--list").out.splitlines()
    assert listed[1:] == [f"{n}\t{c}\tyes" for n, c in (
        ("drift_monitoring", "0 30 3 * * *"), ("hourly", "0 0 * * * *"))]  # fmt: skip
    assert on_cluster("schedule", "--remove", "hourly").code == 0
    assert backend.named("recurringruns") == ["drift_monitoring"]
    again = on_cluster("schedule", "--remove", "hourly")
    assert (again.code, "there are: drift_monitoring" in again.err) == (2, True)


def test_the_cluster_file_says_when(on_cluster, cluster, backend):
    assert on_cluster("schedule", "index_refresh").out == "schedule index_refresh: 0 0 3 * * *\n"
    with cluster.open("a") as file:
        file.write('scale: large\nschedules: {drift_monitoring: ""}\n')
    assert on_cluster("schedule", "index_refresh").out.startswith(
        "schedule index_refresh: 0 0 */2 * * *"
    )
    said = on_cluster("schedule", "drift_monitoring")
    assert (said.code, "schedules.drift_monitoring of the cluster file is empty" in said.err) == (
        2,
        True,
    )


def test_a_schedule_whose_run_goes_on_is_stopped_and_removed_later(on_cluster, backend, experiment):
    words = ("schedule", "drift_monitoring", "--cron", "0 0 3 * * *")
    on_cluster(*words)
    (first,) = backend.kept["recurringruns"]
    run = backend.add_run("fired", "RUNNING", recurring_run_id=first, experiment_id=experiment)
    on_cluster(*words)
    _, second = backend.kept["recurringruns"]
    assert [
        row.split("\t")[2] for row in on_cluster("schedule", "--list").out.splitlines()[1:]
    ] == [
        "no",
        "yes",
    ]
    backend.kept["runs"][run]["state"] = "SUCCEEDED"
    on_cluster(*words)
    assert not {first, second} & set(backend.kept["recurringruns"])
    assert len(backend.kept["recurringruns"]) == 1
    (third,) = backend.kept["recurringruns"]
    backend.add_run("again", "RUNNING", recurring_run_id=third, experiment_id=experiment)
    assert "is disabled" in on_cluster("schedule", "--remove", "drift_monitoring").out
    assert third in backend.kept["recurringruns"]


def test_a_failed_run_is_taken_up_again(on_cluster, backend, experiment):
    run = backend.add_run("broke", "FAILED", experiment_id=experiment)
    assert on_cluster("retry", "broke").out == "run broke is being retried\n"
    assert backend.kept["runs"][run]["state"] == "RUNNING"
    again = on_cluster("retry", "broke")
    assert (again.code, "is running; only a failed run" in again.err) == (2, True)


@pytest.mark.parametrize("place", ["", "postgresql+psycopg://refit@postgres.refit/refit"])
def test_a_monitor_knows_the_alert_store(on_cluster, cluster, backend, place):
    with cluster.open("a") as file:
        file.write(f"alert_store: {json.dumps(place)}\n")
    assert on_cluster("submit", "drift_monitoring").code == 0
    (run,) = backend.kept["runs"].values()
    told = run["runtime_config"]["parameters"]
    assert told["store"] == (place or "/var/refit/monitoring/alerts.sqlite")
    assert told["pages"] == "/var/refit/monitoring/pages"


def test_a_scheduled_monitor_knows_how_to_start_a_refit(on_cluster, backend):
    on_cluster("schedule", "drift_monitoring", "--cron", "0 0 3 * * *")
    (entry,) = backend.kept["recurringruns"].values()
    request = json.loads(entry["runtime_config"]["parameters"]["refit_run"])
    assert request["service_account"] == "trainer"
    assert request["endpoint"] == "http://ml-pipeline.kubeflow:8888"
    assert request["version_id"] in backend.kept["versions"]
    assert request["arguments"]["registry"] == "s3://refit/registry"
    refresh = json.loads(entry["runtime_config"]["parameters"]["refresh_run"])
    assert refresh["arguments"].keys() >= {"indexing", "data_fingerprint"}
    assert refresh["pipeline_id"] != request["pipeline_id"]
    on_cluster("schedule", "drift_monitoring", "--cron", "0 0 3 * * *", "--no-refit")
    (entry,) = backend.kept["recurringruns"].values()
    for started in ("refit_run", "refresh_run"):
        assert entry["runtime_config"]["parameters"][started] == ""


@pytest.mark.parametrize(
    ("words", "tells"),
    [
        (("submit", "nothing"), "no pipeline 'nothing'"),
        (("submit", "--config", "simulat"), "did you mean 'simulated'?"),
        (("schedule",), "name a pipeline to schedule"),
        (("schedule", "index_refresh", "--cron", "nightly"), "six fields"),
        (("schedule", "nothing"), "no pipeline 'nothing'"),
        (("schedule", "index_refresh", "--cron", "0 3 * * *"), 'did you mean "0 0 3 * * *"?'),
        (("schedule", "--list", "--remove", "x"), "name a pipeline to schedule"),
    ],
)
def test_bad_usage_is_2(on_cluster, backend, words, tells):
    said = on_cluster(*words)
    assert (said.code, tells in said.err) == (2, True), said.err
    assert not backend.kept["runs"]
    assert not backend.kept["recurringruns"]


def test_a_gpu_that_no_step_would_use_and_one_that_is_missing_are_refused(
    on_cluster, cluster, backend
):
    on_gpu = ("--set", "training.device=gpu")
    missing = on_cluster("submit", *on_gpu)
    assert (missing.code, "train_towers gets no GPU" in missing.err) == (2, True), missing.err
    values = yaml.safe_load(cluster.read_text()) | {"gpu": {"count": 1}}
    cluster.write_text(yaml.safe_dump(values))
    idle = on_cluster("schedule", "drift_monitoring", "--cron", "0 0 3 * * *")
    assert (idle.code, "train_towers gets a GPU that it would" in idle.err) == (2, True), idle.err
    assert not backend.kept["runs"]
    assert not backend.kept["recurringruns"]
    assert on_cluster("submit", *on_gpu).code == 0
    assert on_cluster("submit", "index_refresh").code == 0


def test_without_a_cluster_file_the_example_is_named(refit, monkeypatch):
    monkeypatch.delenv("REFIT_CLUSTER", raising=False)
    for words in (("submit",), ("cancel", "x"), ("logs", "x"), ("schedule", "--list")):
        said = refit(*words)
        assert (said.code, "configs/example.yaml" in said.err) == (2, True)


@pytest.mark.parametrize(
    "words", [("submit",), ("status", "x"), ("cancel", "x"), ("retry", "x"), ("logs", "x")]
)
def test_a_dead_endpoint_is_5(on_cluster, words):
    said = on_cluster(*words, "--endpoint", "http://127.0.0.1:1")
    assert said.code == 5
    assert "http://127.0.0.1:1" in said.err
    assert "REFIT_KFP_ENDPOINT" in said.err


def test_a_wrong_token_is_5_and_a_right_one_is_not(on_cluster, backend, monkeypatch):
    backend.token = "secret"
    for token in ("", "wrong"):
        monkeypatch.setenv("REFIT_KFP_TOKEN", token)
        said = on_cluster("status")
        assert said.code == 5
        assert "token_file or token_variable" in said.err
        assert "secret" not in said.err
    monkeypatch.setenv("REFIT_KFP_TOKEN", "secret")
    assert on_cluster("status").code == 0


def test_something_else_at_the_endpoint_is_5(on_cluster, backend):
    for path in ("page", "nothing"):
        said = on_cluster("status", "--endpoint", f"{backend.url}/{path}")
        assert (said.code, "Kubeflow Pipelines API" in said.err) == (5, True)


def test_no_endpoint_and_no_kubeconfig_is_5(refit, cluster, tmp_path):
    bare = tmp_path / "bare.yaml"
    bare.write_text("registry: s3://refit/registry\n")
    said = refit("status", "--cluster", bare)
    assert (said.code, "--endpoint" in said.err) == (5, True)
