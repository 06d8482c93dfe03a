"""The speed of the simulated marketplace: its history, and a live day.

Run: ``python tests/benchmarks/bench_simulation.py``
"""

import os
import resource
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy starts its threads

from refit.progress import log_message, set_up_logging
from simulation.history import write_history
from simulation.oracle import random_recommender
from simulation.settings import PRESETS


def main() -> None:
    """Log rows, wall and CPU seconds, rows per second and peak memory for each preset."""
    set_up_logging()
    for preset in PRESETS:
        with tempfile.TemporaryDirectory() as folder:
            wall, cpu = time.perf_counter(), time.process_time()
            market = write_history({"preset": preset}, Path(folder))
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        rows = market.events_table().num_rows
        start = time.perf_counter()
        day = market.simulate_day(random_recommender(market))
        seconds = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        log_message(
            f"{preset}: {rows:,} events, {market.items_table().num_rows:,} listings in "
            f"{wall:.1f} s ({cpu:.1f} CPU s, {rows / cpu:,.0f} events a CPU s); a live day with "
            f"{day.requests.num_rows} requests in {seconds:.2f} s; peak {peak:,.0f} MiB"
        )


if __name__ == "__main__":
    main()
