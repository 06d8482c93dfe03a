"""The page of a study, as one self-contained HTML file."""

import base64
from pathlib import Path

from components.training.tuning.pictures import draw_pictures
from components.training.tuning.results import TuneResults, write_config
from components.training.tuning.space import short_name, show_value
from refit.files import write_json

RESULTS_FILE = "tuning.json"
CONFIG_FILE = "tuned.yaml"
PAGE_FILE = "page.html"


def write_study(folder: Path, results: TuneResults) -> None:
    """Write results, chosen settings, page and pictures into a folder.

    Args:
        folder: A folder, made if it does not exist.
        results: The study's results.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    folder.mkdir(parents=True, exist_ok=True)
    config = write_config(results)
    pictures = [
        {"text": text, "data": base64.b64encode(path.read_bytes()).decode()}
        for path, text in draw_pictures(folder / "pictures", results)
    ]
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"short_name": short_name, "show": show_value}
    page = environment.get_template("page.html").render(
        results=results, pictures=pictures, config=config
    )
    (folder / PAGE_FILE).write_text(page, encoding="utf-8")
    (folder / CONFIG_FILE).write_text(config, encoding="utf-8")
    write_json(folder / RESULTS_FILE, results.model_dump(mode="json"))
