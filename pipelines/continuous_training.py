"""continuous_training: ingest, train and evaluate; deploy only a model that passes the gate."""

from kfp import dsl

from components.deployment.component import deploy_bundle
from components.evaluation.component import evaluate_model, gate
from components.features.component import build_feature_tables
from components.indexing.component import index_listings
from components.ingestion.component import ingest_data
from components.monitoring.component import calibrate_drift
from components.training.component import train_towers
from pipelines.cluster.platform import configure_steps, report_end, resolve_start


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
    """Train a model on a window of data and deploy its bundle if the gate passes.

    Args:
        ingestion: IngestSettings, as JSON.
        features: FeatureSettings.
        training: TrainSettings.
        indexing: IndexSettings.
        evaluation: EvaluationSettings.
        monitoring: MonitorSettings; drift thresholds are calibrated by them.
        deployment: DeploySettings.
        data_fingerprint: Fingerprint of source files and ingestion settings; the cache key.
        registry: Folder or URL of the registry.
        champion: Id of the bundle to beat, empty if there is none.
        checkpoint_folder: Folder of checkpoints that an interrupted training resumes from.
        webhook: URL that is called when the run has ended, empty for none.
        reason: Why the run was started; kept in the audit trail.
    """
    with report_end("continuous_training", webhook):
        fingerprint, champion = resolve_start(ingestion, data_fingerprint, registry, champion)
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
        evaluated = evaluate_model(
            settings=evaluation,
            features=tables.outputs["features"],
            model=model.outputs["model"],
            index=index.outputs["index"],
            registry=registry,
            champion=champion,
        )
        verdict = gate(evaluation=evaluated.outputs["evaluation"])
        verdict.set_caching_options(False)
        # kfp's local runner resolves a condition on a task's single output only; it silently
        # takes a named output for false (kfp 2.17).
        with dsl.If(verdict.output == True, name="the gate passed"):  # noqa: E712
            drift = calibrate_drift(
                settings=monitoring,
                dataset=data.outputs["dataset"],
                index=index.outputs["index"],
                evaluation=evaluated.outputs["evaluation"],
            )
            deployed = deploy_bundle(
                settings=deployment,
                features=tables.outputs["features"],
                dataset=data.outputs["dataset"],
                model=model.outputs["model"],
                index=index.outputs["index"],
                evaluation=evaluated.outputs["evaluation"],
                reference=drift.outputs["reference"],
                registry=registry,
                champion=champion,
                reason=reason,
            )
            deployed.set_caching_options(False)
    configure_steps()
