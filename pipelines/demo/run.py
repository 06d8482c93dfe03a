"""One demo: train, serve, simulate days, drift, alert, refit, and the effect of the refit."""

import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from monitoring.quality.intervals import wilson_interval
from monitoring.store import RefitState
from pipelines.demo.commands import run_command
from pipelines.demo.page import write_page
from pipelines.demo.scenarios import DemoScenario, DemoStep, open_scenario
from pipelines.demo.settings import DemoSettings
from pipelines.home import Home
from pipelines.local import OUTCOME_FILE
from pipelines.reporter import Reporter
from refit.errors import RefitError, UsageError
from refit.files import read_json, remove, write_json
from refit.index import ITEMS_FILE, IndexManifest
from refit.predicates import SELLER
from refit.progress import Meter, StepChange
from refit.registry import Registry
from refit.verdict import Verdict
from serving.client import RecommenderClient
from serving.exposure import ShownAnswer, answer_again, measure_spread
from serving.feeds.settings import LiveFeedSettings
from serving.launch import ServerHandle, launch
from serving.settings import RecommenderSettings, ServeSettings
from serving.stage_settings import ExplorationSettings, RetrievalSettings, SlateSettings

SET_UP = "create the scenario"
TRAIN = "train, evaluate, deploy"
START_SERVER = "start the server"
SEND_REQUESTS = "send requests"
MONITOR = "monitor, refit when due"
REFRESH = "refresh the index"
TRY_SLATES = "try other slates"
STAGES = (SET_UP, TRAIN, START_SERVER, SEND_REQUESTS, MONITOR, REFRESH, TRY_SLATES)
"""The stages whose times are shown; the three before the last take turns."""

HALF_POPULARITY = "half the weight of popularity"
SLATES = {
    "the nearest items, as served": SlateSettings(),
    "at most one item of a seller": SlateSettings(caps={SELLER: 1}),
    "diversity 0.3": SlateSettings(diversity=0.3),
    "10% of the slots explore": SlateSettings(exploration=ExplorationSettings(share=0.1)),
    HALF_POPULARITY: SlateSettings(),
}
"""Settings that are tried on the answers of the demo."""
RETRIEVALS = {HALF_POPULARITY: RetrievalSettings(popularity=0.5)}

BACKGROUND_REQUESTS_PER_SECOND = 2.0
"""Sent while a pipeline runs beside the server, so that a swap happens under load."""

LISTING_SECONDS = 1.5
"""At most so long the demo waits for the server to read new listings."""

MOST_SAMPLES = 6
SAMPLE_EVERY = 97
"""Of the requests, in number."""


@dataclass
class Traffic:
    """Counts of the requests sent to the server."""

    sent: int = 0
    failed: int = 0
    fallbacks: int = 0
    bundles: dict[str, int] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, answer: Mapping[str, Any] | None) -> None:
        """Count one answer; None is a failed request."""
        with self.lock:
            self.sent += 1
            if answer is None:
                self.failed += 1
                return
            self.fallbacks += answer["fallback"] is not None
            bundle = answer["bundle_id"]
            self.bundles[bundle] = self.bundles.get(bundle, 0) + 1


class Demo:
    """One demo, from an empty folder to a page.

    Args:
        settings: What to do.
        reporter: Gets its progress.
    """

    def __init__(self, settings: DemoSettings, reporter: Reporter) -> None:
        self.settings = settings
        self._reporter = reporter
        self.home = Home.at(settings.out / "home")
        self.unit = "day"
        self.traffic = Traffic()
        self.seconds: dict[str, float] = {}
        self.days: list[dict[str, Any]] = []
        self.marks: list[dict[str, Any]] = []
        self.timeline: list[dict[str, Any]] = []
        self.bundles: list[dict[str, Any]] = []
        self.samples: list[dict[str, Any]] = []
        self.drift: list[dict[str, Any]] = []
        self.alerts: list[dict[str, Any]] = []
        self.slates: list[dict[str, Any]] = []

    def run(self) -> dict[str, Any]:
        """Run the demo and write its page and summary.

        Returns:
            The summary, as in ``summary.json``.
        """
        with self._timed(SET_UP):
            self._clear()
            scenario = open_scenario(self.settings)
            self.unit = scenario.unit
        with self._timed(TRAIN):
            first = ("run", "continuous_training", "--first-model")
            trained = self._command(*first, *self._data_options(scenario))
        self._add_run(trained, None, "the first training")
        if not self.bundles[-1]["passed"]:
            return self._write(scenario)
        with self._timed(START_SERVER):
            server = launch(self._serving())
        with server:
            self._add_line(None, "The Seldon microservice serves the first bundle.")
            self._run_steps(scenario, server)
        with self._timed(TRY_SLATES):
            self._try_slates(scenario)
        return self._write(scenario)

    def _clear(self) -> None:
        """Remove an earlier demo, and nothing else."""
        out = self.settings.out
        if out.exists() and any(out.iterdir()) and not self.home.folder.is_dir():
            raise UsageError(f"{out} holds something else than a demo; name another folder: --out")
        remove(out)
        self.home.folder.mkdir(parents=True)

    def _run_steps(self, scenario: DemoScenario, server: ServerHandle) -> None:
        client = server.client()
        progress = Meter(f"{scenario.unit}s", self.settings.live_steps, f"{scenario.unit}s")
        with progress:
            for number in range(1, self.settings.live_steps + 1):
                self._add_changes(scenario, number)
                with self._timed(SEND_REQUESTS):
                    step = scenario.live(
                        self._requester(client, scenario), partial(self._announce, client)
                    )
                self._add_day(scenario, step, number)
                if number % self.settings.monitor_every == 0:
                    with self._background_requests(server, scenario):
                        self._monitor_and_refresh(scenario, number)
                progress.measure(**{"live quality": self.days[-1]["rate"]})
                progress.advance()

    def _try_slates(self, scenario: DemoScenario) -> None:
        """Answer the requests of the bundle that gave most answers again, with other slates."""
        if not self.traffic.bundles:
            return
        bundle_id = max(self.traffic.bundles, key=lambda name: self.traffic.bundles[name])
        bundle = Registry(self.home.registry).get(bundle_id)
        has_sellers = SELLER in pq.read_schema(bundle.index / ITEMS_FILE).names
        slates = {n: s for n, s in SLATES.items() if has_sellers or SELLER not in s.caps}
        n_live = IndexManifest.read(bundle.index).n_live
        answers = answer_again(
            bundle, self.home.predictions, slates, scenario.now, RETRIEVALS, scenario.gone_at()
        )
        self.slates = [
            {
                "name": name,
                **asdict(measure_spread(shown, n_live)),
                "chance_of_sale": _mean_chance(scenario, shown),
            }
            for name, shown in answers.items()
        ]

    def _monitor_and_refresh(self, scenario: DemoScenario, number: int) -> None:
        with self._timed(MONITOR):
            refitted = self._monitor(scenario, number)
        if refitted:  # the new bundle has an index of today
            return
        with self._timed(REFRESH):
            self._command("run", "index_refresh", *self._data_options(scenario))
        self._add_mark(self._day(scenario, number), "refresh", "index refreshed")

    def _monitor(self, scenario: DemoScenario, number: int) -> bool:
        """Run the monitor; returns whether a refit's bundle became the champion."""
        found = self._command(
            "monitor",
            *self._data_options(scenario),
            *scenario.monitor_options(),
            f"--until={scenario.now.isoformat()}",
            f"--windows={self.settings.monitor_every}",
        )
        self._add_results(scenario, number, found["results"])
        day = self._day(scenario, number)
        if found["alert_id"]:
            page = os.path.relpath(found["page"], self.settings.out)
            text = found["reasons"][-1]
            self.alerts.append({"alert_id": found["alert_id"], "page": page, "text": text})
            self._add_mark(day, "alert", "alert")
            self._add_line(day, f"The monitor raises an alert: {text}.", page, "Alert page")
        else:
            self._add_line(day, f"The monitor finds no reason to act: {found['reasons'][-1]}.")
        if found["refit"]:
            self._add_mark(day, "refit", "refit")
            if found["refit"]["state"] == RefitState.FAILED:
                self._add_line(day, f"The refit failed: {found['refit']['outcome']}")
                return False
            run = read_json(self.home.runs / found["refit"]["key"] / OUTCOME_FILE)
            self._add_run(run, day, "the refit")
            if self.bundles[-1]["passed"]:
                self._add_mark(day, "swap", "new bundle")
                return True
        return False

    def _add_results(
        self, scenario: DemoScenario, number: int, results: Sequence[Mapping[str, Any]]
    ) -> None:
        ends = sorted({result["window"]["end"] for result in results})
        first = number - len(ends) + 1
        self.drift += [
            {
                "day": self._day(scenario, first + ends.index(result["window"]["end"])),
                "subject": f"{result['subject']} · {result['statistic']}",
                "value": result["value"],
                "threshold": result["threshold"],
                "state": result["state"],
            }
            for result in results
        ]

    def _add_run(self, run: Mapping[str, Any], day: int | None, name: str) -> None:
        metadata = {record["step"]: record["metadata"] for record in run["steps"]}
        gate = metadata["gate"]
        evaluation = Path(gate["evaluation"])
        verdict = Verdict.parse(read_json(evaluation / "verdict.json"))
        page = f"verdict-{len(self.bundles) + 1}.html"
        shutil.copyfile(evaluation / "report.html", self.settings.out / page)
        bundle_id = metadata.get("deploy", {}).get("bundle_id", "")
        self.bundles.append(
            {
                "name": name,
                "bundle_id": bundle_id,
                "passed": verdict.passed,
                "reasons": list(verdict.reasons),
                "checks": [check.model_dump() for check in verdict.checks],
                "report": page,
                "seconds": {record["step"]: record["seconds"] for record in run["steps"]},
            }
        )
        outcome = (
            f"passed its gate and is bundle {bundle_id}"
            if verdict.passed
            else f"was not promoted, {verdict.outcome}: {verdict.reasons[0]}"
        )
        self._add_line(day, f"The model of {name} {outcome}.", page, "Report")

    def _add_day(self, scenario: DemoScenario, step: DemoStep, number: int) -> None:
        self.days.append(
            {
                "day": self._day(scenario, number),
                "date": f"{step.start:%Y-%m-%d}",
                "answers": step.answers,
                "hits": step.hits,
                **_rate(step.hits, step.answers),
                "champion": Registry(self.home.registry).champion_id(),
                "truth": step.truth,
            }
        )
        self._reporter.message(
            f"{scenario.unit} {self._day(scenario, number)}: {step.hits} of {step.answers} "
            f"{scenario.quality_means}"
        )

    def _requester(
        self, client: RecommenderClient, scenario: DemoScenario
    ) -> Callable[[dict[str, Any]], Any]:
        """A function that sends one request, counts the answer and keeps a few of them."""

        def send(request: dict[str, Any]) -> Mapping[str, Any] | None:
            answer = _send(client, request)
            self.traffic.count(answer)
            sampled = self.traffic.sent % SAMPLE_EVERY == 1
            if answer and sampled and len(self.samples) < MOST_SAMPLES:
                context = json.dumps(request.get("context", {}), sort_keys=True)
                items = [scenario.describe(item["item_id"]) for item in answer["items"][:4]]
                self.samples.append({"context": context, "items": items})
            return answer

        return send

    @contextmanager
    def _background_requests(self, server: ServerHandle, scenario: DemoScenario) -> Iterator[None]:
        """Send requests while something else runs.

        Nobody reacts to their answers. They are dated a year ahead, so that no monitored window
        holds them, nor the first windows, which set the level of live quality.
        """
        client = server.client()
        stop = threading.Event()
        at = scenario.now + timedelta(days=365)

        def send_until_stopped() -> None:
            for number in count():
                if stop.wait(1.0 / BACKGROUND_REQUESTS_PER_SECOND):
                    return
                request = {"user_id": f"background-{number}", "k": self.settings.k, "time": at}
                self.traffic.count(_send(client, request))

        thread = threading.Thread(target=send_until_stopped)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def _announce(self, client: RecommenderClient, lines: list[dict[str, Any]]) -> None:
        """Append to the stock feed, which the server reads, and wait until it has new listings.

        A simulated day takes two seconds. Without the wait, most of the next one would be over
        before its listings can be recommended.
        """
        if not lines:
            return
        listed = any(line["change"] == "listed" for line in lines)
        before = client.status()["live_items"] if listed else 0
        self.home.stock.mkdir(parents=True, exist_ok=True)
        with (self.home.stock / "feed.jsonl").open("a", encoding="utf-8") as feed:
            feed.writelines(json.dumps(line) + "\n" for line in lines)
        deadline = time.monotonic() + LISTING_SECONDS
        while listed and client.status()["live_items"] <= before and time.monotonic() < deadline:
            time.sleep(0.05)

    def _add_changes(self, scenario: DemoScenario, number: int) -> None:
        for change in scenario.truth():
            if change["day"] != self._day(scenario, number):
                continue
            self._add_mark(change["day"], "change", change["name"])
            self._add_line(change["day"], f"A change begins ({change['name']}): {change['does']}")

    def _day(self, scenario: DemoScenario, number: int) -> int:
        return self.settings.past_days + number - 1 if scenario.unit == "day" else number

    def _serving(self) -> ServeSettings:
        return ServeSettings(
            recommender=RecommenderSettings(
                registry=self.home.registry,
                log_folder=self.home.predictions,
                feeds=LiveFeedSettings(stock=str(self.home.stock)),
                allow_replay=True,
                poll_seconds=0.2,
                log_seconds=1.0,
            ),
            http_port=0,
            grpc_port=0,
            metrics_port=0,
            model_server_port=0,
            run_folder=self.home.serving,
        )

    def _data_options(self, scenario: DemoScenario) -> list[str]:
        """Options that have a command read the scenario's data up to now."""
        home = str(self.home.folder)
        return ["--config", scenario.config, "--home", home, *scenario.data_options()]

    def _command(self, *arguments: str) -> Mapping[str, Any]:
        return run_command(arguments, self._reporter)

    def _add_mark(self, day: int, kind: str, label: str) -> None:
        self.marks.append({"day": day, "kind": kind, "label": label})

    def _add_line(self, day: int | None, text: str, link: str = "", link_text: str = "") -> None:
        self.timeline.append({"day": day, "text": text, "link": link, "link_text": link_text})
        self._reporter.milestone(("" if day is None else f"{self.unit} {day}: ") + text)

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        """Report a stage, and add its time to those of its earlier turns."""
        self._reporter.event(StepChange(stage, "running"))
        started, state = time.monotonic(), "failed"
        try:
            yield
            state = "succeeded"
        finally:
            seconds = time.monotonic() - started
            self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds
            self._reporter.event(StepChange(stage, state, seconds))  # type: ignore[arg-type]

    def _write(self, scenario: DemoScenario) -> dict[str, Any]:
        summary = {
            "title": scenario.title,
            "what": scenario.what,
            "unit": scenario.unit,
            "source": self.settings.source,
            "simulated": self.settings.source == "simulated",
            "settings": self.settings.model_dump(mode="json"),
            "quality_means": scenario.quality_means,
            "outcome_means": scenario.outcome_means,
            "quality": self._quality(scenario),
            "requests": {
                "sent": self.traffic.sent,
                "failed": self.traffic.failed,
                "fallbacks": self.traffic.fallbacks,
                "by_bundle": self.traffic.bundles,
            },
            "days": self.days,
            "marks": self.marks,
            "drift": self.drift,
            "timeline": self.timeline,
            "bundles": self.bundles,
            "alerts": self.alerts,
            "slates": self.slates,
            "samples": self.samples,
            "seconds": self.seconds,
            "evidently": f"evidently ui --workspace {self.home.evidently}",
            "note": scenario.note,
        }
        write_json(self.settings.out / "summary.json", summary)
        write_page(summary, self.settings.out / "index.html")
        return summary

    def _quality(self, scenario: DemoScenario) -> dict[str, Any]:
        """Live quality before the change, from the change to the swap, and after the swap."""
        swaps = [mark["day"] for mark in self.marks if mark["kind"] == "swap"]
        changes = [change["day"] for change in scenario.truth()]
        end = float("inf")
        swap = swaps[0] if swaps else end
        change = changes[0] if changes else swap
        first = "before the change" if changes else "before the refit" if swaps else "on all days"
        periods = {
            first: (-end, change),
            "after the change, before the refit": (change, swap),
            "after the refit": (swap, end),
        }
        return {name: self._pool(*ends) for name, ends in periods.items()}

    def _pool(self, first: float, until: float) -> dict[str, Any] | None:
        days = [day for day in self.days if first <= day["day"] < until]
        answers = sum(day["answers"] for day in days)
        return _rate(sum(day["hits"] for day in days), answers) if answers else None


def _mean_chance(scenario: DemoScenario, answers: Sequence[ShownAnswer]) -> float | None:
    """The mean true chance that an answer ends in a sale; None where nobody knows."""
    chances = [
        scenario.chance_of_sale(one.user_id, one.context, one.item_ids, one.time)
        for one in answers
        if one.user_id is not None
    ]
    known = [chance for chance in chances if chance is not None]
    return sum(known) / len(known) if known else None


def _rate(hits: int, n: int) -> dict[str, Any]:
    """A share with its 95% Wilson interval."""
    share = hits / max(n, 1)
    low, high = wilson_interval(share, max(n, 1))
    return {"rate": share, "low": low, "high": high, "n": n}


def _send(client: RecommenderClient, request: dict[str, Any]) -> Mapping[str, Any] | None:
    """Send one request; None when it failed, which is counted."""
    try:
        answer: Mapping[str, Any] = client.recommend(**request)
    except RefitError:
        return None
    return answer
