"""tuning: try settings of the training on the validation split; deploys nothing."""

from kfp import dsl

from components.encoding.component import encode_listings
from components.features.component import build_feature_tables
from components.ingestion.component import ingest_data
from components.training.component import choose_settings, tune_towers
from pipelines.cluster.platform import configure_steps, report_end, resolve_start


@dsl.pipeline(name="tuning")
def tuning(
    ingestion: str,
    features: str,
    training: str,
    tuning: str,
    data_fingerprint: str,
    registry: str,
    studies: str,
    workers: list[str],
    champion: str = "",
    checkpoint_folder: str = "",
    webhook: str = "",
    encoding: str = "{}",
    vector_store: str = "",
) -> None:
    """Try settings of the training, several at a time on a cluster, and choose the best.

    Args:
        ingestion: IngestSettings, as JSON.
        features: FeatureSettings.
        training: TrainSettings.
        tuning: TuneSettings.
        data_fingerprint: Fingerprint of source files and ingestion settings; the cache key.
        registry: Folder or URL of the registry, which names what is in quarantine.
        studies: Folder of the study's file, or URL of its database.
        workers: Name of each worker.
        champion: Not used.
        checkpoint_folder: Folder of checkpoints that an interrupted trial resumes from.
        webhook: URL that is called when the run has ended, empty for none.
        encoding: EncodingPlan; the default encodes nothing.
        vector_store: Folder or URL of the vectors that earlier runs made; empty keeps none.
    """
    with report_end("tuning", webhook):
        start = resolve_start(
            ingestion, encoding, data_fingerprint, registry, champion, deploys=False
        )
        data = ingest_data(settings=start.ingestion, fingerprint=start.fingerprint)
        vectors = encode_listings(
            plan=start.encoding,
            dataset=data.outputs["dataset"],
            store=vector_store,
        )
        tables = build_feature_tables(
            settings=features,
            dataset=data.outputs["dataset"],
            encoded=vectors.outputs["encoded"],
        )
        with dsl.ParallelFor(workers, name="every worker") as worker:
            tried = tune_towers(
                settings=tuning,
                training=training,
                features=tables.outputs["features"],
                studies=studies,
                worker=worker,
                checkpoint_folder=checkpoint_folder,
            )
            # A study that was continued is not what it was.
            tried.set_caching_options(False)
        chosen = choose_settings(
            settings=tuning,
            training=training,
            features=tables.outputs["features"],
            studies=studies,
            found=dsl.Collected(tried.output),
        )
        chosen.set_caching_options(False)
    configure_steps()
