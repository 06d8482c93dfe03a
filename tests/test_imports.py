"""Importing Refit loads nothing heavy; what serves needs no main environment; no import cycles."""

import ast
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import grimp

ROOT = Path(__file__).parent.parent
ROOMS = ("refit", "components", "pipelines", "monitoring", "serving", "simulation")
HEAVY = ("tensorflow", "tf_keras", "kfp", "evidently")
READ_BY_KFP = ("component", "continuous_training", "index_refresh", "drift_monitoring")
"""Names of modules that only kfp's compiler and runner import."""
READ_BY_SELDON = "serving.doors.seldon"
"""The one module that imports Seldon, and with it TensorFlow where that is installed."""
IMPORTED_LATE = {
    *(
        f"components.training.{name}"
        for name in (
            "averages",
            "batches",
            "checkpoint",
            "encoders",
            "export",
            "in_process",
            "lazy_rows",
            "model",
            "optimizer",
            "pairs",
            "recall",
            "recommenders",
            "repeats",
            "sequence",
            "spectral",
            "towers",
        )
    ),
    *(f"monitoring.reports.{name}" for name in ("datasets", "drift", "workspace")),
}
"""Modules made of TensorFlow or Evidently: functions import them once there is work to do."""
OF_WRITERS = "refit.database"
"""The one module of ``refit`` that needs SQLAlchemy; whoever serves only reads a registry."""
IMPORT_EACH = """
import importlib, json, sys
heavy, names, found = json.loads(sys.argv[1]), json.loads(sys.argv[2]), {}
for name in names:
    before = set(sys.modules)
    try:
        importlib.import_module(name)
        loaded = [h for h in heavy if h in sys.modules and h not in before]
    except Exception as error:
        loaded = [f"{type(error).__name__}: {error}"]
    if loaded:
        found[name] = loaded
print(json.dumps(found))
"""


def modules(*rooms: str) -> list[str]:
    files = (path for room in rooms for path in (ROOT / room).rglob("*.py"))
    names = (file.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".") for file in files)
    found = sorted(name.removesuffix(".__init__") for name in names)
    return [name for name in found if not name.endswith("__main__") and name != READ_BY_SELDON]


def is_read_by_kfp(name: str) -> bool:
    return name.rpartition(".")[2] in READ_BY_KFP or name in (
        "pipelines.backtest",
        "pipelines.tuning",
    )


def import_each(environment: str, names: list[str]) -> dict[str, list[str]]:
    """The heavy packages that the modules load, or the error, by the module that was first."""
    done = subprocess.run(
        [f"{environment}/bin/python", "-c", IMPORT_EACH, json.dumps(HEAVY), json.dumps(names)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def test_no_module_loads_anything_heavy():
    everything = {name for name in modules(*ROOMS) if not is_read_by_kfp(name)}
    assert everything >= {*ROOMS, *IMPORTED_LATE}
    names = sorted(everything - IMPORTED_LATE)
    assert import_each(".venv", names) == {}


def test_what_kfp_reads_loads_kfp_alone():
    names = [name for name in modules(*ROOMS) if is_read_by_kfp(name)]
    assert len(names) > 5
    assert list(import_each(".venv", names).values()) == [["kfp"]]


def test_what_serves_imports_in_the_serving_environment():
    # Nothing that serves reads tables: their module needs DuckDB.
    names = [
        name
        for name in modules("refit", "serving")
        if name != OF_WRITERS and not name.startswith("refit.tabular")
    ]
    assert import_each(".venv-serving", names) == {}


def test_one_module_starts_a_program_of_serving_by_name():
    """A step that needs a model server takes its command from here; no contract sees strings."""
    names = {
        (file.relative_to(ROOT).as_posix(), node.value)
        for file, node in nodes("refit", "components", "monitoring")
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and re.fullmatch(r"serving(\.\w+)+", node.value)
    }
    assert names == {("refit/model_server.py", "serving.model_server")}
    assert "serving.model_server" in modules("serving")


def test_one_module_imports_tensorflow_recommenders():
    importers = {
        file.relative_to(ROOT).as_posix()
        for file, node in nodes(*ROOMS)
        if isinstance(node, ast.Import | ast.ImportFrom)
        and "tensorflow_recommenders" in ast.unparse(node)
    }
    assert importers == {"components/training/recommenders.py"}


def nodes(*rooms: str) -> Iterator[tuple[Path, ast.AST]]:
    """Every syntax node of every file."""
    for room in rooms:
        for file in (ROOT / room).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text("utf-8"))):
                yield file, node


def test_the_check_sees_what_is_heavy():
    found = import_each(".venv", ["kfp.dsl", "nothing_of_this_name"])
    assert found["kfp.dsl"] == ["kfp"]
    assert "ModuleNotFoundError" in found["nothing_of_this_name"][0]


def test_what_starts_a_cluster_does_not_import_the_tests_on_it():
    for file in (ROOT / "tests" / "machine").rglob("*.py"):
        assert not re.search(r"\btests\.cluster\b", file.read_text("utf-8")), file


def test_no_modules_import_each_other_in_a_cycle():
    """Imports inside functions and under TYPE_CHECKING count too."""
    graph = grimp.build_graph(*ROOMS)
    cycles = [
        (module, *chain)
        for module in sorted(graph.modules)
        for imported in sorted(graph.find_modules_directly_imported_by(module))
        if (chain := graph.find_shortest_chain(imported, module))
    ]
    assert cycles == []
