"""kill -9 at random moments while a bundle is assembled, added and promoted."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from refit.bundle import load_bundle
from refit.registry import Registry
from tests.factories import name_subject

ROOT = Path(__file__).parent.parent.parent
KILLS = 20
WRITER = """
import sys, pathlib
from refit.bundle import assemble_bundle
from refit.registry import Registry
parts, home = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
registry = Registry(home / "registry")
turn = 0
while True:
    bundle = assemble_bundle(
        **{name: parts / name for name in ("model", "index", "evaluation", "reference")},
        out_root=home / "assembled",
    )
    bundle_id = registry.add(bundle)
    registry.promote(bundle_id, "writer", f"turn {turn}")
    if turn % 3 == 2:
        registry.rollback("writer", f"turn {turn}")
        registry.prune(keep=5)
    turn += 1
    print(turn, flush=True)
"""

pytestmark = pytest.mark.slow


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    passed = {"passed": True, "reasons": [], "measurements": {}, "checks": []}
    files = {
        "model/query_tower/1/saved_model.pb": os.urandom(200_000),
        "model/item_tower/1/saved_model.pb": os.urandom(200_000),
        "model/features.json": b"{}",
        "model/model.json": b'{"embedding_version": "t1"}',
        "index/index.json": b'{"embedding_version": "t1", "as_of": "2025-03-01T00:00:00Z"}',
        "index/vectors.npy": os.urandom(1_000_000),
        "reference/thresholds.json": b'{"embedding_version": "t1"}',
        "evaluation/verdict.json": json.dumps(passed).encode(),
    }
    for name, content in files.items():
        (tmp_path / "parts" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "parts" / name).write_bytes(content)
    name_subject(tmp_path / "parts")
    return tmp_path / "parts"


@pytest.mark.timeout(600)
def test_no_kill_leaves_a_torn_bundle_or_a_gap_in_the_history(parts: Path, tmp_path: Path):
    rng = random.Random(0)
    registry = Registry(tmp_path / "registry")
    seen = 0
    for _ in range(KILLS):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, parts, tmp_path], cwd=ROOT, stdout=subprocess.PIPE
        )
        writer.stdout.readline()  # one whole turn, so that the kill falls into the work
        time.sleep(rng.uniform(0, 0.5))
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        for bundle_id in registry.list():
            registry.get(bundle_id)
        for path in (tmp_path / "assembled").glob("[!.]*"):
            load_bundle(path)
        history = registry.history()
        assert [p.number for p in history] == list(range(1, len(history) + 1))
        assert len(history) > seen
        assert registry.champion() == history[-1]
        assert registry.champion().bundle_id in registry.list()
        seen = len(history)
