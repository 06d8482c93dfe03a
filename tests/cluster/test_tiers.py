"""The report of the cluster tests, without a cluster."""

from pathlib import Path

import pytest

from tests.cluster.__main__ import main


def test_tiers_2_and_3_are_skipped_and_reported_unless_their_programs_are_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert main(["--tier", "kfp", "--tier", "gateway", "--only-built"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[2][:12] for line in lines] == [" DID NOT RUN"] * 2
    assert lines[0].startswith("tier 2, the Kubeflow Pipelines backend and Argo: ")
    assert lines[1].startswith("tier 3, a Gateway of the Gateway API by Traefik: ")
