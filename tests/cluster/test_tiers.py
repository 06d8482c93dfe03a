"""The report of the cluster tests, without a cluster."""

from pathlib import Path

import pytest

from tests.cluster.__main__ import main


def test_tier_2_is_skipped_and_reported_unless_its_programs_are_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert main(["--tier", "kfp", "--only-built"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("tier 2, the Kubeflow Pipelines backend and Argo: DID NOT RUN: ")
