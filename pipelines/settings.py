"""A run's settings: one YAML file, one typed object, handed on to the steps part by part."""

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from pydantic import field_validator

from components.deployment.settings import DeploySettings
from components.evaluation.settings import EvaluationSettings
from components.features.settings import FeatureSettings
from components.indexing.settings import IndexSettings
from components.ingestion.settings import IngestSettings
from components.training.settings import TrainSettings
from monitoring.drift_metrics import require_known
from monitoring.settings import MonitorSettings
from refit.errors import UsageError
from refit.settings import Settings

CONFIGS = Path(__file__).parent / "configs"


class RunSettings(Settings):
    """Everything that a pipeline needs to know, by step.

    Attributes:
        description: What this configuration is for, in a line.
        webhook: URL told how each run ended; empty for none.
    """

    description: str = ""
    webhook: str = ""
    ingestion: IngestSettings
    features: FeatureSettings
    training: TrainSettings = TrainSettings()
    indexing: IndexSettings = IndexSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    deployment: DeploySettings = DeploySettings()
    monitoring: MonitorSettings = MonitorSettings()

    @field_validator("monitoring")
    @classmethod
    def _know_drift_metrics(cls, monitoring: MonitorSettings) -> MonitorSettings:
        # Here and not in MeasureSettings: a reference can be read where a metric is not installed.
        require_known(monitoring.measure.metric_names)
        return monitoring


def list_configs() -> dict[str, str]:
    """Names and descriptions of the configurations that come with Refit."""
    return {
        path.stem: yaml.safe_load(path.read_text("utf-8")).get("description", "")
        for path in sorted(CONFIGS.glob("*.yaml"))
    }


def read_settings(config: str, changes: Iterable[str] = ()) -> RunSettings:
    """Read a configuration by name or path and apply ``name.of.setting=value`` changes.

    Raises:
        UsageError: No such file, not YAML, an unknown name or an unfitting value.
    """
    path = Path(config)
    if not path.suffix and (CONFIGS / f"{config}.yaml").exists():
        path = CONFIGS / f"{config}.yaml"
    try:
        values = yaml.safe_load(path.read_text("utf-8"))
    except FileNotFoundError:
        names = list(list_configs())
        close = get_close_matches(Path(config).stem, names, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise UsageError(
            f"no config {config!r}: {hint}Give a path to a YAML file, or one of {', '.join(names)}"
        ) from None
    except OSError as error:
        raise UsageError(f"config {config!r} cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not YAML: {error}") from None
    if not isinstance(values, dict):
        raise UsageError(f"{path} must hold settings by name")
    for change in changes:
        _apply(values, change)
    return RunSettings.parse(values)


def _apply(values: dict[str, Any], change: str) -> None:
    name, separator, text = change.partition("=")
    if not separator:
        raise UsageError(f"--set takes name.of.setting=value, not {change!r}")
    *parents, last = name.split(".")
    for parent in parents:
        if values.get(parent) is None:
            values[parent] = {}
        values = values[parent]
        if not isinstance(values, dict):
            raise UsageError(f"--set {name}: {parent} is a value, it holds no settings")
    try:
        values[last] = yaml.safe_load(text)
    except yaml.YAMLError:
        raise UsageError(f"--set {name}: {text!r} is not a YAML value") from None
