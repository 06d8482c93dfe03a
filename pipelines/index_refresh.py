"""index_refresh: index today's listings with the champion's towers, without training."""

from kfp import dsl

from components.deployment.component import deploy_refreshed_index
from components.encoding.component import encode_listings
from components.features.component import build_feature_tables
from components.indexing.component import reindex_listings
from components.ingestion.component import ingest_data
from pipelines.cluster.platform import configure_steps, report_end, resolve_start


@dsl.pipeline(name="index-refresh")
def index_refresh(
    ingestion: str,
    features: str,
    indexing: str,
    deployment: str,
    data_fingerprint: str,
    registry: str,
    champion: str,
    webhook: str = "",
    encoding: str = "{}",
    vector_store: str = "",
) -> None:
    """Index the listings that are live now and deploy the index if its gate passes.

    Args:
        ingestion: IngestSettings, as JSON.
        features: FeatureSettings, as JSON; the spec is the champion's, whatever they say.
        indexing: IndexSettings, as JSON.
        deployment: DeploySettings, as JSON.
        data_fingerprint: Fingerprint of source files and ingestion settings; the cache key.
        registry: Folder or URL of the registry.
        champion: Id of the champion.
        webhook: URL that is called when the run has ended, empty for none.
        encoding: EncodingPlan, as JSON; the encoders are the champion's.
        vector_store: Folder or URL of the vectors that earlier runs made; empty keeps none.
    """
    with report_end("index_refresh", webhook):
        start = resolve_start(
            ingestion, encoding, data_fingerprint, registry, champion, needs_champion=True
        )
        champion = start.champion
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
            registry=registry,
            like_bundle=champion,
        )
        refreshed = reindex_listings(
            settings=indexing,
            features=tables.outputs["features"],
            registry=registry,
            champion=champion,
        )
        refreshed.set_caching_options(False)
        with dsl.If(refreshed.outputs["Output"] == True, name="the index has passed"):  # noqa: E712
            deployed = deploy_refreshed_index(
                settings=deployment,
                features=tables.outputs["features"],
                dataset=data.outputs["dataset"],
                index=refreshed.outputs["index"],
                registry=registry,
                champion=champion,
            )
            deployed.set_caching_options(False)
    configure_steps()
