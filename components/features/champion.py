"""Features for a champion whose spec is another than the new model's: its own, of the same moments.

They are built from the same dataset, so that champion and model answer the same queries over the
same candidates, each with the inputs that it was trained on.
"""

from pathlib import Path

from components.features.build import OF_THE_COMPARISON, build_features
from components.features.settings import FeatureSettings
from refit.champion_features import TABLES_FOLDER, ChampionFeatures
from refit.encoding import CHAMPION_FOLDER, EncodedItems, differ
from refit.errors import RefitError
from refit.features import FeaturesManifest, FeatureSpec
from refit.files import remove, write_atomically
from refit.progress import log_message


def build_champion_features(
    settings: FeatureSettings,
    dataset: Path,
    out: Path,
    champion: Path | None,
    champion_id: str,
    encoded: Path | None = None,
) -> ChampionFeatures:
    """Write the champion's own features of a dataset, if its spec or its encoders are others.

    Args:
        settings: Settings of the new model's features.
        dataset: A dataset folder of the ingestion step.
        out: Output folder; it is replaced.
        champion: The champion's bundle folder; None if there is no champion.
        champion_id: Its id.
        encoded: The encoding step's folder, which has the champion's vectors too where its encoders
            are others; None where there is none.

    Returns:
        The record that is written. Features that cannot be built, such as for want of a column,
        are a problem in it and no error: the gate then refuses the comparison with that reason.
    """
    with write_atomically(out) as folder:
        folder.mkdir()
        record = ChampionFeatures(champion=champion_id)
        if champion is not None:
            kept = FeaturesManifest.read(champion)
            vectors = _find_vectors(kept, encoded)
            if _inputs(kept.spec) != _inputs(settings.spec) or vectors != encoded:
                log_message("the champion reads other features: building its own")
                record = record.model_copy(update={"needed": True})
                try:
                    build_features(
                        settings, dataset, folder / TABLES_FOLDER, champion, True, vectors
                    )
                except RefitError as error:
                    record = record.model_copy(update={"problem": str(error)})
                    log_message(f"the champion's own features cannot be built: {error}")
        record.write(folder)
        remove(out)
    return record


def _find_vectors(kept: FeaturesManifest, encoded: Path | None) -> Path | None:
    """The folder with the vectors that a model was trained with."""
    if encoded is None or not differ(kept.encoding, EncodedItems.read(encoded).encoding):
        return encoded
    own = encoded / CHAMPION_FOLDER
    return own if kept.encoding is not None and own.exists() else None


def _inputs(spec: FeatureSpec) -> FeatureSpec:
    """A spec without what does not change the inputs of a trained model."""
    unused = {name: FeatureSpec.model_fields[name].default for name in OF_THE_COMPARISON}
    return spec.model_copy(update={**unused, "popularity_values": 1})
