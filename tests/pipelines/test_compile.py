"""The compiled pipelines: snapshots up to date, and what every cluster would rely on."""

import re

import pytest
import yaml

from components.images import MAIN_IMAGE
from pipelines.compile import PIPELINES, compile_pipelines
from pipelines.local import COMPILED_FOLDER


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compiled")
    return {path.stem: path for path in compile_pipelines(folder)}


@pytest.fixture(params=PIPELINES)
def ir(request):
    return yaml.safe_load((COMPILED_FOLDER / f"{request.param}.yaml").read_text("utf-8"))


def dags(ir):
    found = {name: c["dag"] for name, c in ir["components"].items() if "dag" in c}
    return {"root": ir["root"]["dag"], **found}


@pytest.mark.parametrize("name", PIPELINES)
def test_the_snapshot_is_what_the_code_compiles_to(name, fresh):
    kept = COMPILED_FOLDER / f"{name}.yaml"
    assert kept.read_bytes() == fresh[name].read_bytes(), (
        f"{kept} does not match the code; run make compile"
    )


def test_nothing_else_is_kept():
    assert {path.stem for path in COMPILED_FOLDER.iterdir()} == set(PIPELINES)


def test_steps_run_in_our_pinned_image_and_install_nothing(ir):
    executors = ir["deploymentSpec"]["executors"]
    assert executors
    for executor in executors.values():
        container = executor["container"]
        assert container["image"] == MAIN_IMAGE
        assert re.fullmatch(r"[\w./-]+:\d+\.\d+\.\d+", container["image"])
        assert not re.search(r"\bpip3?\b", yaml.safe_dump(container))


def test_every_outcome_is_reported(ir):
    tasks = ir["root"]["dag"]["tasks"]
    (body,) = (name for name in tasks if name.startswith("exit-handler"))
    report = tasks["report-run"]
    assert report["dependentTasks"] == [body]
    assert report["triggerPolicy"]["strategy"] == "ALL_UPSTREAM_TASKS_COMPLETED"
    assert set(tasks) == {body, "report-run"}


def test_steps_that_decide_or_deploy_are_never_cached(ir):
    uncached = {"report-run", "gate", "deploy-bundle", "keep-refused-bundle", "watch-drift"}
    for dag in dags(ir).values():
        for name, task in dag["tasks"].items():
            if name in uncached:
                assert not task["cachingOptions"].get("enableCache"), name


def test_nothing_is_deployed_outside_a_condition():
    for name in ("continuous_training", "index_refresh"):
        ir = yaml.safe_load((COMPILED_FOLDER / f"{name}.yaml").read_text("utf-8"))
        names = {task for dag in dags(ir).values() for task in dag["tasks"]}
        changing = {task for task in names if task.startswith(("deploy", "refresh", "keep"))}
        assert changing
        conditions = [
            task["componentRef"]["name"]
            for dag in dags(ir).values()
            for task in dag["tasks"].values()
            if "condition" in task.get("triggerPolicy", {})
        ]
        behind = {t for c in conditions for t in ir["components"][c]["dag"]["tasks"]}
        assert changing <= behind


def test_conditions_read_a_single_output():
    """kfp 2.17's local runner takes a condition on a named output for false."""
    for name in PIPELINES:
        ir = yaml.safe_load((COMPILED_FOLDER / f"{name}.yaml").read_text("utf-8"))
        for dag in dags(ir).values():
            for task in dag["tasks"].values():
                condition = task.get("triggerPolicy", {}).get("condition")
                assert condition is None or "-Output']" in condition
