"""Load what a config names from packages, before the first step runs and not after hours."""

from components.evaluation.tuning import load_baselines
from monitoring.drift_metrics import load_metric
from monitoring.subjects import check_patterns
from pipelines.settings import RunSettings
from refit.eligibility import Rules


def check_extensions(settings: RunSettings) -> None:
    """Load the baselines, eligibility rules and drift metrics of a run on this machine.

    The source is loaded when the fingerprint of its data is computed.

    Raises:
        UsageError: One does not exist, cannot be imported, lacks an attribute, does not take its
            options, or would measure nothing.
    """
    Rules.load(settings.features.market)
    for name in settings.monitoring.measure.metric_names:
        load_metric(name)
    check_patterns(settings.monitoring.measure)
    load_baselines(settings.evaluation.baselines)
