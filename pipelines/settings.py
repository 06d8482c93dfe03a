"""A run's settings: one YAML file, one typed object, passed to the steps part by part."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import field_validator, model_validator

from components.deployment.settings import DeploySettings
from components.encoding.settings import EncodingSettings
from components.evaluation.leak_settings import check_intended
from components.evaluation.settings import EvaluationSettings
from components.features.settings import FeatureSettings
from components.indexing.settings import IndexSettings
from components.ingestion.settings import IngestSettings
from components.training.settings import TrainSettings
from components.training.tuning.settings import TuneSettings
from monitoring.drift_metrics import require_known
from monitoring.settings import MonitorSettings
from pipelines.loading import LoadedSettings, load_settings, read_document
from pipelines.scale import ScaledSettings
from pipelines.strict_yaml import Document
from refit.backtest import BacktestSettings
from refit.errors import UsageError
from refit.setting_values import EMPTY

CONFIGS = Path(__file__).parent / "configs"
EXTENDS = "extends"
"""A name in a config file: another config, whose settings hold where the file gives none."""


class RunSettings(ScaledSettings):
    """Everything that a pipeline needs to know, by step.

    Attributes:
        scale: The size of the marketplace: ``small`` (a laptop, a demo), ``standard`` (a shop) or
            ``large`` (tens of millions of listings). Sizes, limits and schedules that are not given
            follow from it; see ``pipelines/scales.yaml``.
        description: What this configuration is for, in a line.
        webhook: URL that is called when a run has ended; empty for none.
        ingestion: What data to read, and how it is cleaned and split.
        encoding: Which texts and pictures of the items are encoded, and by what.
        features: Which columns feed the towers, and how histories and popularity are counted.
        training: The towers and their training.
        tuning: Which settings ``refit tune`` tries, and for how long.
        indexing: The index over the live listings.
        evaluation: How a model is evaluated, and what the gate demands.
        backtest: Which earlier windows ``refit backtest`` goes through, and what it demands.
        deployment: How a bundle goes live.
        monitoring: How drift is measured, and what it may start.
    """

    table: ClassVar[str] = "run"

    description: str = ""
    webhook: str = ""
    ingestion: IngestSettings
    encoding: EncodingSettings = EncodingSettings()
    features: FeatureSettings
    training: TrainSettings = TrainSettings()
    tuning: TuneSettings = TuneSettings()
    indexing: IndexSettings = IndexSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    backtest: BacktestSettings = BacktestSettings()
    deployment: DeploySettings = DeploySettings()
    monitoring: MonitorSettings = MonitorSettings()

    @field_validator("monitoring")
    @classmethod
    def _know_drift_metrics(cls, monitoring: MonitorSettings) -> MonitorSettings:
        # Here and not in MeasureSettings: a reference can be read where a metric is not installed.
        require_known(monitoring.measure.metric_names)
        return monitoring

    @model_validator(mode="after")
    def _read_the_vectors(self) -> Self:
        column, vector = self.encoding.column, self.features.spec.item_vector
        if self.encoding.encoders and vector != column:
            raise ValueError(
                f"encoding writes the column {column!r}, which no tower reads: set"
                f" features.spec.item_vector to it, not to {vector!r}; encoding.keep joins vectors"
                " that the items have"
            )
        return self

    @model_validator(mode="after")
    def _know_intended_groups(self) -> Self:
        check_intended(self.evaluation.leaks, self.features.spec)
        return self


def list_configs() -> dict[str, str]:
    """Names and descriptions of the configurations that come with Refit."""
    return {
        path.stem: read_document(path, "config").values.get("description", "")
        for path in sorted(CONFIGS.glob("*.yaml"))
    }


def read_settings(config: str, changes: Iterable[str] = ()) -> RunSettings:
    """Read a configuration by name or path and apply ``name.of.setting=value`` changes.

    Raises:
        UsageError: There is no such file, it is not YAML, a name is unknown or a value does not
            fit.
    """
    return load_config(config, changes).settings


def load_config(config: str, changes: Iterable[str] = ()) -> LoadedSettings[RunSettings]:
    """As ``read_settings``, with where each value comes from.

    A later change of the same setting takes the place of an earlier one.
    """
    return load_settings(RunSettings, _read_config(config, Path()), changes)


def find_config(config: str, folder: Path = Path()) -> Path:
    """The file of a configuration by name or path; a path is taken from ``folder``."""
    path = Path(config)
    if not path.suffix and (CONFIGS / f"{config}.yaml").exists():
        return CONFIGS / f"{config}.yaml"
    return folder / path


def _read_config(config: str, folder: Path, extended_by: tuple[Path, ...] = ()) -> Document:
    """A config file, above the one that it extends.

    Args:
        config: Its name or path.
        folder: Where a path begins.
        extended_by: The files that led here.
    """
    path = find_config(config, folder)
    try:
        document = read_document(path, "config")
    except FileNotFoundError:
        names = sorted(file.stem for file in CONFIGS.glob("*.yaml"))
        close = get_close_matches(path.stem, names, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise UsageError(
            f"no config {config!r}: {hint}Give a path to a YAML file, or one of {', '.join(names)}"
        ) from None
    return _above_its_base(document, path, (*extended_by, path.resolve()))


def _above_its_base(document: Document, path: Path, files: tuple[Path, ...]) -> Document:
    """The document, with the values of the config that it extends where it gives none itself."""
    values, places = dict(document.values), dict(document.places)
    base = values.pop(EXTENDS, None)
    place = places.pop((EXTENDS,), None)
    if base is None:
        return document
    where = f"{document.source}: {EXTENDS}" + (f" ({place.where})" if place else "")
    if not isinstance(base, str) or not base:
        raise UsageError(f"{where}: write the name or the path of another config")
    if find_config(base, path.parent).resolve() in files:
        raise UsageError(f"{where}: the file extends itself, or one that extends it")
    below = _read_config(base, path.parent, files)
    below_places = {
        inside: replace(each, where=f"{below.source}, {each.where}")
        for inside, each in below.places.items()
    }
    return Document(document.source, _merge(below.values, values), {**below_places, **places})


def _merge(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """As ``merge``; a section with nothing in it leaves what is there."""
    kept = {
        name: each
        for name, each in over.items()
        if not (each is EMPTY and isinstance(under.get(name), Mapping))
    }
    nested = {
        name: _merge(under[name], each)
        for name, each in kept.items()
        if isinstance(each, Mapping) and isinstance(under.get(name), Mapping)
    }
    return {**under, **kept, **nested}
