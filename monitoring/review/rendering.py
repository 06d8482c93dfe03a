"""Render the templates: everything that they are given is escaped."""

from collections.abc import Callable, Mapping
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from monitoring.review.settings import LinkSettings

if TYPE_CHECKING:
    from jinja2 import Environment

FOLDER = Path(__file__).parent
TEMPLATES, ASSETS = FOLDER / "templates", FOLDER / "assets"


def render(template: str, links: LinkSettings | None = None, **values: Any) -> str:
    """Render a template.

    Args:
        template: Its file's name.
        links: What it links to; None links to nothing.
        values: What it shows; a missing name is an error.
    """
    links = links or LinkSettings()
    common: dict[str, Any] = {"static": False, "me": None, "message": "", "failed": False}
    common |= {"links": links, "image": image_urls(links), "here": ""}
    return _open_environment().get_template(template).render(common | values)


def image_urls(links: LinkSettings) -> Callable[[Mapping[str, str]], str]:
    """A function that gives the URL of a listing's picture; empty where there is none."""

    def find(row: Mapping[str, str]) -> str:
        item_id = row.get("item_id", "")
        if not links.image or not item_id:
            return ""
        return links.image.replace("{item_id}", quote(item_id, safe=""))

    return find


@cache
def _open_environment() -> "Environment":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
    from markupsafe import Markup, escape

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=select_autoescape(),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # Lets a line break after the slash of subject/statistic.
    environment.filters["breakable"] = lambda text: escape(text).replace("/", Markup("/<wbr>"))
    environment.filters["moment"] = format_moment
    environment.globals["style"] = Markup((ASSETS / "app.css").read_text("utf-8"))
    return environment


def format_moment(moment: datetime) -> str:
    """A time as pages show it."""
    return f"{moment:%Y-%m-%d %H:%M} UTC"
