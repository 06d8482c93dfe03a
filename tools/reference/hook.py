"""MkDocs hook: fills the parts of pages that follow from the code or from files of the repository.

- ``<!-- generated: settings -->`` becomes what ``GENERATORS`` makes of that name.
- ``<!-- repository: kustomize/README.md -->`` becomes that file; its links lead to the site's pages
  where there is one, and are plain text elsewhere.
"""

import os
import posixpath
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from tools.reference import data
from tools.reference.commands import write_commands
from tools.reference.settings import write_settings

ROOT = Path(__file__).resolve().parents[2]

_MARK = re.compile(r"^<!-- (?P<kind>generated|repository): (?P<name>\S+) -->$", re.M)
_LINK = re.compile(r"(?<!!)\[(?P<text>[^\]]+)\]\((?P<target>[^)#\s]+)?(?P<anchor>#[^)\s]+)?\)")


def _run_settings() -> str:
    from pipelines.settings import RunSettings

    return write_settings(RunSettings)


def _cluster_settings() -> str:
    from pipelines.cluster.settings import ClusterSettings

    return write_settings(ClusterSettings)


def _recommender_settings() -> str:
    from serving.settings import RecommenderSettings

    return write_settings(RecommenderSettings)


def _review_settings() -> str:
    from monitoring.review.settings import ReviewSettings

    return write_settings(ReviewSettings)


def _server_settings() -> str:
    from serving.settings import PlainServerSettings

    return write_settings(PlainServerSettings)


GENERATORS: dict[str, Callable[[], str]] = {
    "settings": _run_settings,
    "cluster-settings": _cluster_settings,
    "review-settings": _review_settings,
    "recommender-settings": _recommender_settings,
    "server-settings": _server_settings,
    "configs": data.write_configs,
    "contract": data.write_contract,
    "treatments": data.write_treatments,
    "sources": data.write_sources,
    "drift-metrics": data.write_drift_metrics,
    "feed-faults": data.write_feed_faults,
    "scales": data.write_scales,
    "search-space": data.write_search_space,
    "commands": write_commands,
    "request": data.write_request,
    "similar-request": data.write_similar_request,
    "fallbacks": data.write_fallbacks,
    "prediction-log": data.write_prediction_log,
    "alerts": data.write_alerts,
}


def on_page_markdown(markdown: str, *, page: Any, files: Any, **_: Any) -> str:
    """Fill a page's marks; MkDocs calls it for every page."""
    pages = {file.src_uri for file in files.documentation_pages()}

    def fill(match: re.Match[str]) -> str:
        if match["kind"] == "generated":
            return GENERATORS[match["name"]]()
        return include(match["name"], page.file.src_uri, pages)

    return _MARK.sub(fill, markdown)


def include(name: str, page: str, pages: Iterable[str]) -> str:
    """A file of the repository as the content of a page, its links turned to the site's pages."""
    included = {file: uri for uri in pages for file in included_files(uri)}

    def turn(match: re.Match[str]) -> str:
        target, anchor = match["target"] or "", match["anchor"] or ""
        if not target or "://" in target:
            return match[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(name), target))
        uri = included.get(path, path.removeprefix("docs/"))
        if uri not in pages:
            return match["text"]
        return f"[{match['text']}]({os.path.relpath(uri, posixpath.dirname(page))}{anchor})"

    return _LINK.sub(turn, (ROOT / name).read_text("utf-8"))


def included_files(page: str) -> list[str]:
    """The files of the repository that a page includes."""
    text = (ROOT / "docs" / page).read_text("utf-8")
    return [m["name"] for m in _MARK.finditer(text) if m["kind"] == "repository"]
