"""continuous_training: ingest, train, judge, and let through only what is better."""

from kfp import dsl

from components.deployment.component import deploy_bundle
from components.evaluation.component import evaluate_model, gate
from components.features.component import build_feature_tables
from components.indexing.component import index_listings
from components.ingestion.component import ingest_data
from components.monitoring.component import calibrate_drift
from components.training.component import train_towers
from pipelines.cluster.platform import end_reported, place_steps, start_from


@dsl.pipeline(name="continuous-training")
def continuous_training(
    ingestion: str,
    features: str,
    training: str,
    indexing: str,
    evaluation: str,
    monitoring: str,
    deployment: str,
    data_fingerprint: str,
    registry: str,
    champion: str = "",
    checkpoint_folder: str = "",
    webhook: str = "",
    reason: str = "",
) -> None:
    """Train on a window of data and promote the bundle when its verdict has passed.

    Args:
        ingestion: IngestSettings, as JSON.
        features: FeatureSettings.
        training: TrainSettings.
        indexing: IndexSettings.
        evaluation: EvaluationSettings.
        monitoring: MonitorSettings; says how drift thresholds are calibrated.
        deployment: DeploySettings.
        data_fingerprint: Of source files and ingestion settings; the key of caching.
        registry: Folder or URL where bundles are kept.
        champion: Id of the bundle to beat, empty when there is none.
        checkpoint_folder: Where a killed training goes on from.
        webhook: URL told how the run ended, empty for none.
        reason: Why the run was started; kept in the bundle's audit line.
    """
    with end_reported("continuous_training", webhook):
        fingerprint, champion = start_from(ingestion, data_fingerprint, registry, champion)
        data = ingest_data(settings=ingestion, fingerprint=fingerprint)
        tables = build_feature_tables(settings=features, dataset=data.outputs["dataset"])
        model = train_towers(
            settings=training,
            features=tables.outputs["features"],
            checkpoint_folder=checkpoint_folder,
        )
        index = index_listings(
            settings=indexing, features=tables.outputs["features"], model=model.outputs["model"]
        )
        judged = evaluate_model(
            settings=evaluation,
            features=tables.outputs["features"],
            model=model.outputs["model"],
            index=index.outputs["index"],
            registry=registry,
            champion=champion,
        )
        verdict = gate(evaluation=judged.outputs["evaluation"])
        verdict.set_caching_options(False)
        # kfp's local runner resolves a condition on a task's single output only; a named
        # output is silently taken for false (kfp 2.17).
        with dsl.If(verdict.output == True, name="the verdict has passed"):  # noqa: E712
            drift = calibrate_drift(
                settings=monitoring,
                dataset=data.outputs["dataset"],
                index=index.outputs["index"],
                evaluation=judged.outputs["evaluation"],
            )
            deployed = deploy_bundle(
                settings=deployment,
                features=tables.outputs["features"],
                dataset=data.outputs["dataset"],
                model=model.outputs["model"],
                index=index.outputs["index"],
                evaluation=judged.outputs["evaluation"],
                reference=drift.outputs["reference"],
                registry=registry,
                champion=champion,
                reason=reason,
            )
            deployed.set_caching_options(False)
    place_steps()
