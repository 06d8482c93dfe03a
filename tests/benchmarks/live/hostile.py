"""10,000 hostile requests and 1,000 slow connections, as ``make test-hostile`` sends them."""

import argparse
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from serving.processes import PROJECT
from tests.benchmarks.live.figures import Figure

PART = "hostile"
TEST = "tests/serving/doors/test_hostile.py"


def run(_: argparse.Namespace, folder: Path) -> Iterator[Figure]:
    """Run the test, and repeat what it prints."""
    command = [sys.executable, "-m", "pytest", "-m", "slow", "-s", "-p", "no:cacheprovider", TEST]
    command += ["--basetemp", str(folder / "pytest")]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    told = re.findall(r"^(HTTP .*|seconds at .*)$", done.stdout, re.MULTILINE)
    value = "as it should be" if done.returncode == 0 else "; ".join(done.stdout.splitlines()[-3:])
    yield Figure(
        PART, "no 5xx of ours, no delay for others", 11_000, value, "both", not done.returncode
    )
    for line in told:
        yield Figure(PART, line, 1, "")
