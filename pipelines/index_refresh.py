"""index_refresh: today's listings, the champion's towers; no training."""

from kfp import dsl

from components.deployment.component import deploy_refreshed_index
from components.features.component import build_feature_tables
from components.indexing.component import reindex_listings
from components.ingestion.component import ingest_data
from pipelines.cluster.platform import end_reported, place_steps, start_from


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
) -> None:
    """Index what is on sale now and promote it, when the index gate has passed.

    Args:
        ingestion: IngestSettings, as JSON.
        features: FeatureSettings, as JSON; the champion's own spec is what counts.
        indexing: IndexSettings, as JSON.
        deployment: DeploySettings, as JSON.
        data_fingerprint: Of source files and ingestion settings; the key of caching.
        registry: Folder or URL where bundles are kept.
        champion: Id of the bundle that serves.
        webhook: URL told how the run ended, empty for none.
    """
    with end_reported("index_refresh", webhook):
        fingerprint, champion = start_from(
            ingestion, data_fingerprint, registry, champion, needs_champion=True
        )
        data = ingest_data(settings=ingestion, fingerprint=fingerprint)
        tables = build_feature_tables(
            settings=features,
            dataset=data.outputs["dataset"],
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
    place_steps()
