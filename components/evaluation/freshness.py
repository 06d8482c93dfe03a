"""How old the model, its index and the test window are, and what a champion has seen."""

from datetime import UTC, datetime
from pathlib import Path

from components.evaluation.data import EvaluationData, Longs
from components.evaluation.results import Freshness
from components.evaluation.settings import EvaluationSettings
from refit.errors import RefitError
from refit.features import FeaturesManifest
from refit.files import read_json
from refit.index import IndexManifest

SECONDS_PER_DAY = 86_400.0


def measure_freshness(
    settings: EvaluationSettings,
    data: EvaluationData,
    model: Path,
    index: Path,
    times: Longs,
) -> Freshness:
    """Ages in days at ``settings.freshness.as_of``; what cannot be read has none.

    Args:
        settings: Whether the ages are counted from now or from the end of the data.
        data: The features folder.
        model: Model folder.
        index: Index folder.
        times: [n] times of the test queries, in microseconds since 1970.
    """
    first, last = (datetime.fromtimestamp(int(t) / 1e6, UTC) for t in (times.min(), times.max()))
    dataset = data.manifest.dataset
    end = dataset.split.end if dataset else last
    as_of = datetime.now(UTC) if settings.freshness.as_of == "now" else max(end, last)
    trained_until, indexed = read_trained_until(model), _read_as_of(index)

    def age(time: datetime | None) -> float | None:
        return None if time is None else (as_of - time).total_seconds() / SECONDS_PER_DAY

    overlap = None if trained_until is None else (trained_until - first).total_seconds()
    return Freshness(
        as_of=as_of.isoformat(),
        trained_until=trained_until.isoformat() if trained_until else "",
        model_days=age(trained_until),
        index_days=age(indexed),
        test_days=age(last),
        overlap_days=None if overlap is None else overlap / SECONDS_PER_DAY,
    )


def read_trained_until(folder: Path) -> datetime | None:
    """End of the examples that a model was trained on; None if the folder does not say."""
    value = read_json(folder / "model.json").get("trained_until")
    return _utc(datetime.fromisoformat(value)) if value else None


def read_seen_until(folder: Path) -> datetime | None:
    """End of the data that a model was trained and tuned on; None if the folder does not say.

    The validation split, which decides parameters, ends where the test split of its data starts.
    """
    ends = [read_trained_until(folder)]
    dataset = FeaturesManifest.read(folder).dataset
    if dataset:
        ends.append(_utc(dataset.split.test_start))
    return max((end for end in ends if end), default=None)


def _read_as_of(index: Path) -> datetime | None:
    try:
        return _utc(IndexManifest.read(index).as_of)
    except RefitError:
        return None


def _utc(time: datetime) -> datetime:
    return time if time.tzinfo else time.replace(tzinfo=UTC)
