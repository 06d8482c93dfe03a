"""The kfp wrappers: each is thin, and its function does with real folders what it says."""

import ast
import inspect
import re
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest

from components.images import MAIN_IMAGE
from components.step import RUN_FOLDER_VARIABLE
from refit.dataset import DatasetManifest
from refit.features import FeaturesManifest
from refit.files import read_json, write_json
from refit.quarantine import Quarantine
from refit.registry import Registry
from refit.verdict import Check, Verdict

ROOT = Path(__file__).parents[2]
MODULES = sorted(
    f"components.{path.parent.name}.component" for path in ROOT.glob("components/*/component.py")
)


@pytest.fixture
def run_folder(tmp_path, monkeypatch):
    monkeypatch.setenv(RUN_FOLDER_VARIABLE, str(tmp_path / "run"))
    return tmp_path / "run" / "steps"


@pytest.fixture
def artifact(tmp_path):
    """Makes what kfp hands to a step's function."""
    return lambda name: SimpleNamespace(path=str(tmp_path / name), metadata={})


def components_of(module):
    from kfp.dsl.python_component import PythonComponent

    found = vars(import_module(module)).values()
    return [value for value in found if isinstance(value, PythonComponent)]


def test_every_step_has_a_component():
    folders = {p.name for p in ROOT.glob("components/*") if (p / "__init__.py").is_file()}
    assert {module.split(".")[1] for module in MODULES} == folders


@pytest.mark.parametrize("module", MODULES)
def test_a_wrapper_stands_alone_and_installs_nothing(module):
    """kfp ships the function's source only: what it uses must be imported inside it."""
    found = components_of(module)
    assert found
    for component in found:
        container = component.component_spec.implementation.container
        assert container.image == MAIN_IMAGE
        assert not re.search(r"\bpip3?\b", " ".join(map(str, container.command)))
        (function,) = ast.parse(inspect.getsource(component.python_func)).body
        function.decorator_list, function.args = [], ast.arguments([], [], None, [], [], None, [])
        function.returns = None
        code = compile(ast.Module([function], []), "<component>", "exec")
        body = next(c for c in code.co_consts if inspect.iscode(c))
        known = set(dir(__builtins__)) | set(__builtins__ if isinstance(__builtins__, dict) else ())
        parameters = set(inspect.signature(component.python_func).parameters)
        assert global_names(body) - known - parameters == set()


def global_names(code):
    import dis

    names = {i.argval for i in dis.get_instructions(code) if i.opname == "LOAD_GLOBAL"}
    nested = (c for c in code.co_consts if inspect.iscode(c))
    return names.union(*(global_names(c) for c in nested))


@pytest.mark.parametrize("module", MODULES)
def test_a_wrapper_documents_every_parameter(module):
    for component in components_of(module):
        function = component.python_func
        for name in inspect.signature(function).parameters:
            assert f"{name}:" in function.__doc__, f"{function.__name__} says nothing of {name}"


def test_ingest_encode_and_features(artifact, run_folder, tmp_path):
    from components.encoding.component import encode_listings
    from components.encoding.plan import EncodingPlan
    from components.features.component import build_feature_tables
    from components.features.settings import FeatureSettings
    from components.ingestion.component import ingest_data
    from components.ingestion.settings import IngestSettings

    market = {"days": 4, "n_shoppers": 60, "listings_per_day": 20, "visits_per_day": 30}
    settings = IngestSettings(source="simulated", simulated=market, validation_days=1, test_days=1)
    dataset, encoded, features = (artifact(name) for name in ("dataset", "encoded", "features"))
    ingest_data.python_func(
        settings=settings.model_dump_json(), fingerprint="as submitted", dataset=dataset
    )
    manifest = DatasetManifest.read(Path(dataset.path))
    assert dataset.metadata == {
        "fingerprint": manifest.fingerprint,
        "submitted_fingerprint": "as submitted",
        "source": "simulated",
        "simulated": True,
    }
    assert read_json(run_folder / "ingest.json")["metadata"]["counts"]["events"]["rejected"] == 0
    plan = EncodingPlan(settings={"encoders": [{"encoder": "wordllama", "columns": ["title"]}]})
    encode_listings.python_func(
        plan=plan.to_json(), dataset=dataset, encoded=encoded, store=str(tmp_path / "store")
    )
    step = read_json(run_folder / "encode.json")["metadata"]
    assert step["encoded"] > 0
    spec = {"target_events": ["view"], "event_weights": {"view": 1.0}}
    build_feature_tables.python_func(
        settings=FeatureSettings(spec={**spec, "item_vector": "listing_vector"}).model_dump_json(),
        dataset=dataset,
        encoded=encoded,
        features=features,
    )
    found = FeaturesManifest.read(Path(features.path))
    assert found.vector_size == 256
    assert found.encoding.encoder_version == step["encoder_version"]
    assert encoded.metadata == {"encoder_version": step["encoder_version"]}
    assert features.metadata["snapshots"] == len(found.snapshots) > 0


@pytest.mark.parametrize("needs_champion", [False, True])
def test_a_run_on_a_cluster_starts_without_what_is_in_quarantine(
    tmp_path, run_folder, needs_champion
):
    from components.ingestion.component import find_start
    from components.ingestion.fingerprint import fingerprint_source
    from components.ingestion.settings import IngestSettings

    (tmp_path / "events.csv").write_text("user_id\n")
    settings = IngestSettings(source="files", path=str(tmp_path), validation_days=1, test_days=1)
    kept = Quarantine(
        quarantine_id="q1", table="items", start=datetime(2024, 5, 1, tzinfo=UTC), reason="x"
    )
    registry = Registry(tmp_path / "registry")
    registry.publish_quarantines(lambda published: [kept])
    found = find_start.python_func(
        settings=settings.model_dump_json(),
        registry=str(tmp_path / "registry"),
        champion="b1" if needs_champion else "",
        needs_champion=needs_champion,
        first_model=not needs_champion,
    )
    ingestion, fingerprint, champion = found
    read = IngestSettings.parse_json(ingestion)
    assert [d.quarantine_id for d in read.quarantined] == ([] if needs_champion else ["q1"])
    assert fingerprint == fingerprint_source(read)
    assert (fingerprint == fingerprint_source(settings)) is needs_champion
    assert champion == ("b1" if needs_champion else "")


def test_settings_that_do_not_fit_end_a_step_with_2(artifact, run_folder):
    from components.ingestion.component import ingest_data

    with pytest.raises(SystemExit) as ended:
        ingest_data.python_func(settings='{"sorce": 1}', fingerprint="", dataset=artifact("data"))
    assert ended.value.code == 2
    assert "did you mean 'source'?" in read_json(run_folder / "ingest.json")["error"]


def test_a_run_on_a_cluster_finds_its_encoders_first(tmp_path, run_folder):
    from components.encoding.component import plan_encoding
    from components.encoding.plan import EncodingPlan

    settings = EncodingPlan(settings={"encoders": [{"encoder": "wordllama", "columns": ["title"]}]})
    found = plan_encoding.python_func(settings=settings.to_json(), registry=str(tmp_path))
    (encoder,) = EncodingPlan.parse_json(found).settings.encoders
    assert len(encoder.checksum) == 64


@pytest.mark.parametrize("measured", [0.5, 0.1, None])
def test_gate(artifact, run_folder, measured):
    from components.evaluation.component import gate

    verdict = Verdict.of([Check(name="hit rate", measured=measured, at_least=0.3)])
    evaluation = artifact("evaluation")
    write_json(Path(evaluation.path) / "verdict.json", verdict.model_dump(mode="json"))
    assert gate.python_func(evaluation=evaluation) is (measured == 0.5)
    metadata = read_json(run_folder / "gate.json")["metadata"]
    assert metadata["passed"] is (measured == 0.5)
    assert bool(metadata["reasons"]) is (measured != 0.5)


def test_gate_without_a_verdict_is_no_pass(artifact, run_folder):
    from components.evaluation.component import gate

    with pytest.raises((SystemExit, OSError)):
        gate.python_func(evaluation=artifact("nothing"))
    assert read_json(run_folder / "gate.json")["exit_code"] == 1


def test_report(run_folder):
    from components.reporting.component import report_run

    status = SimpleNamespace(state="FAILED", error_message="step train failed")
    report_run.python_func(status=status, pipeline="continuous_training")
    assert read_json(run_folder / "report.json")["metadata"] == {"state": "FAILED"}
