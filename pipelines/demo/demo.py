"""The demo's story: train, serve, live, drift, alert, refit, and what came of it."""

import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from monitoring.live_quality import Rate
from monitoring.store import RefitState
from pipelines.demo.commands import run_command
from pipelines.demo.page import write_page
from pipelines.demo.scenarios import DemoScenario, DemoStep, open_world
from pipelines.demo.settings import DemoSettings
from pipelines.home import Home
from pipelines.local import OUTCOME_FILE
from refit.errors import RefitError, UsageError
from refit.files import read_json, remove, write_json
from refit.registry import Registry
from refit.verdict import Verdict
from serving.client import RecommenderClient
from serving.launch import ServerHandle, launch
from serving.settings import RecommenderSettings, ServeSettings

Say = Callable[[str], None]

STEADY_REQUESTS_PER_SECOND = 2.0
"""Asked while a pipeline runs beside the server, so that a swap under load is seen."""

NIGHT_SECONDS = 1.5
"""At most so long is waited for the server to take up new listings."""


@dataclass
class Traffic:
    """Requests sent to the server and what became of them."""

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
        say: Gets each line of progress.
    """

    def __init__(self, settings: DemoSettings, say: Say) -> None:
        self.settings = settings
        self.log_message = say
        self.home = Home.at(settings.out / "home")
        self.unit = "day"
        self.traffic = Traffic()
        self.seconds: dict[str, float] = {}
        self.days: list[dict[str, Any]] = []
        self.marks: list[dict[str, Any]] = []
        self.lines: list[dict[str, Any]] = []
        self.bundles: list[dict[str, Any]] = []
        self.samples: list[dict[str, Any]] = []
        self.drift: list[dict[str, Any]] = []
        self.alerts: list[dict[str, Any]] = []

    def tell(self) -> dict[str, Any]:
        """Live the story and write its page and summary.

        Returns:
            The summary, as in ``summary.json``.
        """
        with self._timed("a scenario to live in"):
            self._clear()
            scenario = open_world(self.settings)
            self.unit = scenario.unit
        with self._timed("train, judge, deploy"):
            trained = self._command("run", "continuous_training", *self._pointed(scenario))
        self._tell_run(trained, None, "the first training")
        if not self.bundles[-1]["passed"]:
            return self._write(scenario)
        with self._timed("start the server"):
            server = launch(self._serving())
        with server:
            self._line(None, "The Seldon microservice answers requests with the first bundle.")
            self._live(scenario, server)
        return self._write(scenario)

    def _clear(self) -> None:
        """Remove an earlier demo, and nothing else."""
        out = self.settings.out
        if out.exists() and any(out.iterdir()) and not self.home.folder.is_dir():
            raise UsageError(f"{out} holds something else than a demo; name another folder: --out")
        remove(out)
        self.home.folder.mkdir(parents=True)

    def _live(self, scenario: DemoScenario, server: ServerHandle) -> None:
        client = server.client()
        for number in range(1, self.settings.live_steps + 1):
            self._mark_changes(scenario, number)
            with self._timed("shoppers ask and react"):
                step = scenario.live(self._asker(client, scenario), partial(self._announce, client))
            self._count(scenario, step, number)
            if number % self.settings.monitor_every == 0:
                with self._steady(server, scenario):
                    with self._timed("measure drift, decide (and refit)"):
                        renewed = self._monitor(scenario, number)
                    if not renewed:  # a refit brings an index of today with it
                        with self._timed("refresh the index"):
                            self._command("run", "index_refresh", *self._pointed(scenario))
                        self._mark(self._day(scenario, number), "refresh", "index refreshed")

    def _monitor(self, scenario: DemoScenario, number: int) -> bool:
        """Have the monitor look; returns whether a refit's bundle took over."""
        found = self._command(
            "monitor",
            *self._pointed(scenario),
            *scenario.monitored(),
            f"--until={scenario.now.isoformat()}",
            f"--windows={self.settings.monitor_every}",
        )
        self._note_results(scenario, number, found["results"])
        day = self._day(scenario, number)
        if found["alert_id"]:
            page = os.path.relpath(found["page"], self.settings.out)
            text = found["reasons"][-1]
            self.alerts.append({"alert_id": found["alert_id"], "page": page, "text": text})
            self._mark(day, "alert", "alert")
            self._line(day, f"The monitor alerts: {text}.", page, "Alert page")
        else:
            self._line(day, f"The monitor looks, and does nothing: {found['reasons'][-1]}.")
        if found["refit"]:
            self._mark(day, "refit", "refit")
            if found["refit"]["state"] == RefitState.FAILED:
                self._line(day, f"The refit failed: {found['refit']['outcome']}")
                return False
            run = read_json(self.home.runs / found["refit"]["key"] / OUTCOME_FILE)
            self._tell_run(run, day, "the refit")
            if self.bundles[-1]["passed"]:
                self._mark(day, "swap", "new bundle")
                return True
        return False

    def _note_results(
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

    def _tell_run(self, run: Mapping[str, Any], day: int | None, name: str) -> None:
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
        ended = (
            f"passed its gate and is bundle {bundle_id}"
            if verdict.passed
            else f"was refused by its gate: {verdict.reasons[0]}"
        )
        self._line(day, f"The model of {name} {ended}.", page, "Report")

    def _count(self, scenario: DemoScenario, step: DemoStep, number: int) -> None:
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
        self.log_message(
            f"{scenario.unit} {self._day(scenario, number)}: {step.hits} of {step.answers} "
            f"{scenario.quality_means}"
        )

    def _asker(
        self, client: RecommenderClient, scenario: DemoScenario
    ) -> Callable[[dict[str, Any]], Any]:
        def ask(request: dict[str, Any]) -> Mapping[str, Any] | None:
            answer = _try(client, request)
            self.traffic.count(answer)
            if answer and len(self.samples) < 6 and self.traffic.sent % 97 == 1:
                asked = json.dumps(request.get("context", {}), sort_keys=True)
                items = [scenario.describe(item["item_id"]) for item in answer["items"][:4]]
                self.samples.append({"asked": asked, "answered": items})
            return answer

        return ask

    @contextmanager
    def _steady(self, server: ServerHandle, scenario: DemoScenario) -> Iterator[None]:
        """Keep asking while something else runs.

        These requests are dated a year ahead: nobody reacts to them, so that no monitored window,
        nor the first ones that set the level of live quality, may hold them.
        """
        client = server.client()
        stop = threading.Event()
        at = scenario.now + timedelta(days=365)

        def keep_asking() -> None:
            for number in count():
                if stop.wait(1.0 / STEADY_REQUESTS_PER_SECOND):
                    return
                request = {"user_id": f"steady-{number}", "k": self.settings.k, "time": at}
                self.traffic.count(_try(client, request))

        thread = threading.Thread(target=keep_asking)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def _announce(self, client: RecommenderClient, lines: list[dict[str, Any]]) -> None:
        """Append to the stock feed, which the server reads, and wait for it to take up listings.

        A simulated day takes two seconds: without this night most of the next one would be over
        before its listings can be shown.
        """
        if not lines:
            return
        listed = any(line["change"] == "listed" for line in lines)
        before = client.status()["live_items"] if listed else 0
        self.home.stock.mkdir(parents=True, exist_ok=True)
        with (self.home.stock / "feed.jsonl").open("a", encoding="utf-8") as feed:
            feed.writelines(json.dumps(line) + "\n" for line in lines)
        deadline = time.monotonic() + NIGHT_SECONDS
        while listed and client.status()["live_items"] <= before and time.monotonic() < deadline:
            time.sleep(0.05)

    def _mark_changes(self, scenario: DemoScenario, number: int) -> None:
        for change in scenario.truth():
            if change["day"] != self._day(scenario, number):
                continue
            self._mark(change["day"], "change", change["name"])
            self._line(change["day"], f"A change sets in ({change['name']}): {change['does']}")

    def _day(self, scenario: DemoScenario, number: int) -> int:
        return self.settings.past_days + number - 1 if scenario.unit == "day" else number

    def _serving(self) -> ServeSettings:
        return ServeSettings(
            recommender=RecommenderSettings(
                registry=self.home.registry,
                log_folder=self.home.predictions,
                stock_folder=self.home.stock,
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

    def _pointed(self, scenario: DemoScenario) -> list[str]:
        return ["--config", scenario.config, "--home", str(self.home.folder), *scenario.changes()]

    def _command(self, *arguments: str) -> Mapping[str, Any]:
        return run_command(arguments, lambda line: self.log_message(f"  {line}"), self.log_message)

    def _mark(self, day: int, kind: str, label: str) -> None:
        self.marks.append({"day": day, "kind": kind, "label": label})

    def _line(self, day: int | None, text: str, link: str = "", link_text: str = "") -> None:
        self.lines.append({"day": day, "text": text, "link": link, "link_text": link_text})
        self.log_message(("" if day is None else f"{self.unit} {day}: ") + text)

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.monotonic() - started

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
            "story": self.lines,
            "bundles": self.bundles,
            "alerts": self.alerts,
            "samples": self.samples,
            "seconds": self.seconds,
            "evidently": f"evidently ui --workspace {self.home.evidently}",
            "note": scenario.note,
        }
        write_json(self.settings.out / "summary.json", summary)
        write_page(summary, self.settings.out / "index.html")
        return summary

    def _quality(self, scenario: DemoScenario) -> dict[str, Any]:
        """Live quality before the change, from then to the swap, and after it."""
        swaps = [mark["day"] for mark in self.marks if mark["kind"] == "swap"]
        changes = [change["day"] for change in scenario.truth()]
        end = float("inf")
        swap = swaps[0] if swaps else end
        change = changes[0] if changes else swap
        stretches = {
            "before the change" if changes else "before the refit": (-end, change),
            "after it, until the refit": (change, swap),
            "after the refit": (swap, end),
        }
        return {name: self._pool(*ends) for name, ends in stretches.items()}

    def _pool(self, first: float, until: float) -> dict[str, Any] | None:
        days = [day for day in self.days if first <= day["day"] < until]
        answers = sum(day["answers"] for day in days)
        return _rate(sum(day["hits"] for day in days), answers) if answers else None


def _rate(hits: int, n: int) -> dict[str, Any]:
    """A share with its 95% Wilson interval."""
    rate = Rate(hits, max(n, 1))
    low, high = rate.interval
    return {"rate": rate.share, "low": low, "high": high, "n": n}


def _try(client: RecommenderClient, request: dict[str, Any]) -> Mapping[str, Any] | None:
    """One request; None when it failed, which the story counts."""
    try:
        answer: Mapping[str, Any] = client.recommend(**request)
    except RefitError:
        return None
    return answer
