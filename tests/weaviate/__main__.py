"""Search beyond one machine, measured: one table.

    make test-weaviate

Three real nodes of Weaviate on this machine hold each item three times. The search of 100 items is
measured through the pool of a request, as answers use it, in Weaviate and in this process, for
filters that leave more or fewer items; then requests are asked all the time while a node is killed,
started again, and a champion of other towers takes over. The exit code is 1 if a request failed or
recall is below its bound.
"""

import argparse
import sys
import tempfile
import threading
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from refit.errors import ServiceUnreachable
from refit.index import scan
from refit.ports import free_ports
from refit.progress import log_message, set_up_logging
from serving.engines.settings import IndexWriterSettings
from serving.engines.writer import IndexWriter
from serving.recommender import Recommender
from serving.request import Request
from serving.settings import RecommenderSettings
from tests.serving import tiny
from tests.weaviate.cluster import Cluster
from tests.weaviate.load import Load, under_load

K = 100
MIN_RECALL = 0.9
FILTERS = {
    "no filter": {},
    "a third": {"size": ["M"]},
    "1%": {"price": {"min": 50.0, "max": 50.95}},
    "0.1%": {"price": {"min": 50.0, "max": 50.095}},
}


def make_bundle(folder: Path, seed: int) -> object:
    """A bundle whose towers are made at random."""
    model = tiny.make_model(folder / f"model-{seed}", seed)
    return tiny.make_bundle(folder / f"parts-{seed}", model, seed, tiny.D)


def fill(writer: IndexWriter) -> float:
    """Let a writer finish; return the seconds."""
    started = time.monotonic()
    while writer.step() or not all(mirror.is_served for mirror in writer.mirrors.values()):
        pass
    return time.monotonic() - started


def measure_searches(remote: Recommender, embedded: Recommender, n: int) -> tuple[list[str], float]:
    """Lines of the table, and the lowest recall."""
    lines = [
        f"{'search of 100':<14}{'left':>8}{'recall':>9}{'p50 ms':>9}{'p99 ms':>9}  here: p50, p99"
    ]
    rng = np.random.default_rng(0)
    queries = rng.normal(size=(n, tiny.D)).astype(np.float32)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    worst = 1.0
    for name, require in FILTERS.items():
        request = Request(require=require)
        times: dict[str, list[float]] = {"remote": [], "embedded": []}
        found = []
        for query in queries:
            rows = {}
            for kind, recommender in (("remote", remote), ("embedded", embedded)):
                pool = recommender.snapshot.find_pool(request, datetime.now(UTC))
                started = time.perf_counter()
                rows[kind] = pool.search(query, K).rows
                times[kind].append(1000 * (time.perf_counter() - started))
            vectors = np.asarray(pool.catalogue.index.vectors)
            _, exact = scan(query[None], vectors, K, pool.eligible)
            best = exact[0][exact[0] >= 0]
            found.append(np.isin(best, rows["remote"]).mean())
        left = int(pool.eligible.sum()) if pool.eligible is not None else pool.catalogue.n_live
        recall = float(np.mean(found))
        worst = min(worst, recall)
        there, here = (np.percentile(times[kind], [50, 99]) for kind in ("remote", "embedded"))
        lines.append(
            f"{name:<14}{left:>8,}{recall:>9.3f}{there[0]:>9.1f}{there[1]:>9.1f}"
            f"  {here[0]:.1f}, {here[1]:.1f}"
        )
    return lines, worst


def describe(what: str, load: Load) -> str:
    """A line of the table about requests under load."""
    p50, p99, most = 1000 * np.percentile(load.seconds, [50, 99, 100])
    return (
        f"{what:<34}{load.answers:>7,} answers, {len(load.failures)} failed, "
        f"{sum(load.fallbacks.values())} fallbacks {load.fallbacks or ''}, "
        f"p50 {p50:.0f}, p99 {p99:.0f}, slowest {most:.0f} ms"
    )


def measure(options: argparse.Namespace, folder: Path) -> bool:
    """Measure, print the table, and return whether all is well."""
    tiny.N_LIVE, tiny.D = options.items, options.size
    tiny.AS_OF = datetime.now(UTC) - timedelta(hours=1)
    registry = folder / "registry"
    tiny.promote(registry, make_bundle(folder, 0))
    # The writer has one of its own: each makes its model server hold what it needs itself.
    ports = free_ports(2)
    servers = [tiny.start_model_server(port, folder / f"model_server_{port}.log") for port in ports]
    cluster = Cluster(folder)
    try:
        weaviate = cluster.settings.model_dump(mode="json")
        writing = {
            "registry": str(registry),
            "model_server": f"127.0.0.1:{ports[0]}",
            "weaviate": weaviate,
            "collection": {"keep_seconds": 5.0},
        }
        answering = {
            "registry": str(registry),
            "model_server": f"127.0.0.1:{ports[1]}",
            "log_folder": str(folder / "log"),
            "tower_deadline_ms": 5000,
            "allow_replay": True,
        }
        with closing(IndexWriter(IndexWriterSettings.parse(writing))) as writer:
            seconds = fill(writer)
            log_message(f"{options.items / seconds:,.0f} items/s, three times each")
            searching = {**answering, "engine": {"weaviate": weaviate}}
            with Recommender(RecommenderSettings.parse(searching)) as remote:
                with Recommender(RecommenderSettings.parse(answering)) as embedded:
                    lines, recall = measure_searches(remote, embedded, options.queries)
                loads = {
                    "a node is killed and comes back": kill_a_node(remote, cluster),
                    "other towers take over": take_over(remote, writer, folder, registry),
                }
    finally:
        cluster.stop()
        for server in servers:
            server.stop()
    head = f"{options.items:,} items x {options.size}, filled in {seconds:.0f} s"
    lines = [head, *lines, *(describe(what, load) for what, load in loads.items())]
    sys.stdout.write("\n".join([*lines, ""]))
    return recall >= MIN_RECALL and not any(load.failures for load in loads.values())


def kill_a_node(remote: Recommender, cluster: Cluster) -> Load:
    """Ask while a node is killed and started again."""
    with under_load(remote) as load:
        time.sleep(5)
        cluster.kill(1)
        time.sleep(5)
        cluster.start(1)
        time.sleep(5)
    return load


def take_over(remote: Recommender, writer: IndexWriter, folder: Path, registry: Path) -> Load:
    """Ask while a champion of other towers is filled and takes over."""
    bundle = make_bundle(folder, 1)
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            try:
                busy = writer.step()
            except ServiceUnreachable as error:
                log_message(str(error))
                busy = False
            time.sleep(0 if busy else 0.1)

    thread = threading.Thread(target=write)
    with under_load(remote, threads=1) as load:
        tiny.promote(registry, bundle)
        thread.start()
        while remote.bundle_id != bundle.bundle_id:
            time.sleep(0.1)
        time.sleep(8)
        stop.set()
        thread.join()
    return load


def main() -> int:
    """Measure, print the table, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=50_000)
    parser.add_argument("--size", type=int, default=64, help="length of the vectors")
    parser.add_argument("--queries", type=int, default=300, help="searches for each filter")
    options = parser.parse_args()
    set_up_logging()
    with tempfile.TemporaryDirectory(prefix="refit-weaviate-") as folder:
        return 0 if measure(options, Path(folder)) else 1


if __name__ == "__main__":
    sys.exit(main())
