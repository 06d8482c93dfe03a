"""Write an alert's page and the list of alerts as plain files, which need no server.

They come from the templates of the review application, without its forms.
"""

import base64
from pathlib import Path

from monitoring.review.rendering import render
from monitoring.review.view import Picture, list_unchecked, read_view
from monitoring.store import AlertStore
from refit.alert import Alert
from refit.files import write_atomically


def write_alert(store: AlertStore, folder: Path, alert: Alert) -> Path:
    """Write an alert's page.

    Args:
        store: The alert store.
        folder: Where the pages are; the alert's evidence is there as ``<alert_id>.json``.
        alert: What to show.

    Returns:
        The page's path.
    """
    view = read_view(store, folder, alert)
    page = render("alert.html", static=True, view=view, source=embed)
    return _write(folder / f"{alert.alert_id}.html", page)


def write_index(store: AlertStore, folder: Path) -> Path:
    """Write ``index.html``: all alerts, newest first, and what is not checked."""
    latest = {refit.alert_id: refit for refit in store.refits()}
    unchecked = list_unchecked(store.newest_results())
    page = render(
        "index.html", static=True, alerts=store.alerts(), refits=latest, unchecked=unchecked
    )
    return _write(folder / "index.html", page)


def embed(picture: Picture) -> str:
    """A picture as a URL that holds it."""
    return "data:image/svg+xml;base64," + base64.b64encode(picture.to_svg().encode()).decode()


def _write(path: Path, page: str) -> Path:
    with write_atomically(path) as staging:
        staging.write_text(page, encoding="utf-8")
    return path
