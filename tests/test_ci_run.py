"""What .ci/run reports, with a make that only prints."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MAKE = """#!/bin/sh
case "$*" in
    *" test") echo "10 passed, 1 skipped in 3s" ;;
    *test-cluster*) echo "make $*"; printf "$TIERS"; exit "${CLUSTER:-0}" ;;
    *" lint") exit "${LINT:-0}" ;;
esac
"""
TIERS = r"tier 1, Kubernetes: passed\ntier 2, the backend: DID NOT RUN: it is not built\n"


@pytest.fixture
def ci_run(tmp_path):
    (tmp_path / "make").write_text(MAKE)
    (tmp_path / "make").chmod(0o755)

    def run(**variables: str) -> tuple[int, list[str], str]:
        path = f"{tmp_path}:{os.environ['PATH']}"
        done = subprocess.run(
            [ROOT / ".ci" / "run"],
            env={
                **os.environ,
                "REFIT_CLUSTER_TESTS": "",
                "TIERS": TIERS,
                "PATH": path,
                **variables,
            },
            capture_output=True,
            text=True,
            check=False,
        )
        _, _, summary = done.stdout.rpartition("== summary: ")
        return done.returncode, summary.splitlines(), done.stdout

    return run


def test_the_summary_reports_times_outcomes_and_what_was_not_run(ci_run):
    code, (result, *lines), output = ci_run()
    assert code == 0
    assert result.startswith("all passed in ")
    sections = [line.partition(":")[0] for line in lines if line.endswith(" s")]
    assert (sections[0], sections[-1]) == ("set-up", "test-cluster")
    assert "test: 10 passed, 1 skipped in 3s" in lines
    assert "tier 1, Kubernetes: passed" in lines
    assert "not run: tier 2, the backend: it is not built" in lines
    assert "ARGS=--only-built" in output


def test_all_cluster_tests_run_on_request(ci_run):
    assert "--only-built" not in ci_run(REFIT_CLUSTER_TESTS="all")[2]


def test_cluster_tests_can_be_skipped(ci_run):
    code, lines, output = ci_run(REFIT_CLUSTER_TESTS="0")
    assert code == 0
    assert "not run: all tiers of the cluster tests: REFIT_CLUSTER_TESTS=0" in lines
    assert "make test-cluster" not in output


@pytest.mark.parametrize(
    ("variables", "failed"),
    [
        ({"LINT": "1"}, "lint: FAILED"),
        ({"CLUSTER": "2"}, "test-cluster: FAILED"),
        ({"TIERS": ""}, "test-cluster: FAILED"),
    ],
    ids=["a section fails", "a tier fails", "no tier is reported"],
)
def test_a_failure_is_reported_and_ends_the_run(ci_run, variables, failed):
    code, (result, *lines), _ = ci_run(**variables)
    assert code == 1
    assert result.startswith("FAILED after ")
    assert any(line.startswith(failed) for line in lines)
