"""Reference pages of data: the contract, requests and answers, the prediction log, alerts."""

import ast
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from tools.reference.settings import describe_attributes, show, to_markdown

ROOT = Path(__file__).resolve().parents[2]


def write_contract() -> str:
    """Tables of the data contract's columns."""
    from refit.contract import EVENTS, ITEMS, USERS

    head = ("column", "kind", "meaning")
    parts = []
    for name, columns in (("events", EVENTS), ("items", ITEMS), ("users", USERS)):
        rows = ((f"`{c.name}`", c.kind + ", required" * c.required, c.meaning) for c in columns)
        parts += [f"## {name}", table(head, rows)]
    return "\n\n".join(parts)


def write_treatments() -> str:
    """How ingestion treats invalid data, from the section of its README."""
    text = (ROOT / "components" / "ingestion" / "README.md").read_text("utf-8")
    section = re.search(r"^## How invalid data is treated\n(.*?)(?=^## )", text, re.M | re.S)
    if section is None:
        raise ValueError("components/ingestion/README.md has no section on invalid data")
    return section[1].strip()


def write_configs() -> str:
    """A table of the configurations that come with Refit."""
    from pipelines.settings import list_configs

    rows = ((f"`{name}`", description) for name, description in list_configs().items())
    return table(("config", "what it is for"), rows)


def write_fallbacks() -> str:
    """A list of the reasons for which an answer does not come from the model."""
    from serving.towers import Fallback

    return ", ".join(f"`{reason.value}`" for reason in Fallback)


def write_sources() -> str:
    """A table of the built-in data sources, read from their modules without importing them."""
    rows = []
    for path in sorted((ROOT / "components" / "ingestion" / "sources").glob("[a-z]*.py")):
        module = ast.parse(path.read_text("utf-8"))
        summary = to_markdown((ast.get_docstring(module) or "").split("\n\n")[0])
        rows.append((f"`{path.stem}`", summary, _constant(module, "TERMS")))
    return table(("source", "what it reads", "where the data comes from, and its terms"), rows)


def write_drift_metrics() -> str:
    """A table of the built-in drift metrics, and their runbooks."""
    from monitoring.drift_metrics import METRICS, load_metric

    metrics = [load_metric(name) for name in METRICS.builtin_names()]
    rows = ((f"`{metric.name}`", metric.unit) for metric in metrics)
    parts = [table(("metric", "unit"), rows)]
    for metric in metrics:
        advice = ((f"`{p}`", a.meaning, a.action) for p, a in metric.runbook.items())
        parts += [f"## `{metric.name}`", table(("subject", "meaning", "action"), advice)]
    return "\n\n".join(parts)


def write_feed_faults() -> str:
    """A table of the named faults of feeds: the sign, what its value means and what to do."""
    from monitoring.faults import FAULTS, load_fault

    faults = [load_fault(name) for name in FAULTS.builtin_names()]
    rows = (
        (f"`{f.name}`", " and ".join(f.tables), f.unit, f.advice.meaning, f.advice.action)
        for f in faults
    )
    return table(("fault", "feeds", "its value", "meaning", "action"), rows)


def write_scales() -> str:
    """What each scale gives, as a definition list for runs and one for clusters."""
    from pipelines.scale import SCALES, read_scales

    parts = []
    for heading, name in (("Runs", "run"), ("Clusters", "cluster")):
        parts.append(f"## {heading}")
        for setting, row in read_scales()[name].items():
            values = " · ".join(f"{scale} `{show(row.value(scale))}`" for scale in SCALES)
            parts.append(f"`{setting}`\n:   {values}\n\n    {' '.join(row.why.split())}")
    return "\n\n".join(parts)


def write_search_space() -> str:
    """What refit tune tries by default, as a table."""
    from components.training.tuning.settings import DEFAULT_SPACE

    rows = ((f"`{name}`", values.describe()) for name, values in DEFAULT_SPACE.items())
    return table(("setting", "values"), rows)


def write_request() -> str:
    """The fields of a request, with bounds, and its JSON schema."""
    from serving.request import Request

    return _describe_request(Request)


def write_similar_request() -> str:
    """The fields of a request for similar items, and its JSON schema."""
    from serving.request import SimilarRequest

    return _describe_request(SimilarRequest)


def _describe_request(model: type[BaseModel]) -> str:
    schema = model.model_json_schema()
    described = describe_attributes(model)
    rows = (
        (f"`{name}`", _show_default(field), to_markdown(described[name]))
        for name, field in schema["properties"].items()
    )
    text = json.dumps(schema, indent=2)
    return "\n\n".join(
        (
            table(("field", "default", "meaning"), rows),
            '??? note "JSON schema"\n\n    ```json\n'
            + "".join(f"    {line}\n" for line in text.splitlines())
            + "    ```",
        )
    )


def write_prediction_log() -> str:
    """A table of the prediction log's columns."""
    from refit.prediction import PREDICTION_SCHEMA

    rows = (
        (f"`{field.name}`", f"`{field.type}`", "yes" if field.nullable else "")
        for field in PREDICTION_SCHEMA
    )
    return table(("column", "Arrow type", "may be null"), rows)


def write_alerts() -> str:
    """Tables of the Prometheus alerts, by group."""
    path = ROOT / "kustomize" / "components" / "prometheus" / "rules.yaml"
    parts = []
    for group in yaml.safe_load(path.read_text("utf-8"))["spec"]["groups"]:
        rows = (
            (
                f"`{rule['alert']}`<br>{rule['labels']['severity']}",
                _plain(rule["annotations"]["summary"]),
                _plain(rule["annotations"]["action"]),
            )
            for rule in group["rules"]
        )
        parts += [f"## {group['name']}", table(("alert, severity", "meaning", "action"), rows)]
    return "\n\n".join(parts)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    cells = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in row) + " |" for row in cells)


def _cell(text: str) -> str:
    return " ".join(str(text).split()).replace("|", "\\|")


def _plain(text: str) -> str:
    """An alert's text; what Prometheus fills in is shown as an ellipsis."""
    return re.sub(r"\{\{.*?\}\}", "…", text)


def _show_default(field: dict[str, Any]) -> str:
    return f"`{json.dumps(field['default'])}`" if "default" in field else "required"


def _constant(module: ast.Module, name: str) -> str:
    for node in module.body:
        targets = [ast.unparse(t) for t in getattr(node, "targets", [])]
        if name in targets and isinstance(node, ast.Assign):
            return str(ast.literal_eval(node.value))
    return ""
