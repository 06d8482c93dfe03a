"""continuous_training: ingest, train and evaluate; deploy only a model that passes the gate.

The bundle of a model that the gate refused is kept in the registry and serves nobody.
"""

from kfp import dsl

from components.deployment.component import deploy_bundle, keep_refused_bundle
from components.encoding.component import encode_listings
from components.evaluation.component import evaluate_model, gate
from components.features.component import build_champion_tables, build_feature_tables
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
    first_model: bool = False,
    encoding: str = "{}",
    vector_store: str = "",
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
        champion: Id of the bundle to beat, empty for the first model.
        checkpoint_folder: Folder of checkpoints that an interrupted training resumes from.
        webhook: URL that is called when the run has ended, empty for none.
        reason: Why the run was started; kept in the audit trail.
        first_model: Whether this is the registry's first model. Without a champion, a run that does
            not say so fails before it trains.
        encoding: EncodingPlan; the default encodes nothing.
        vector_store: Folder or URL of the vectors that earlier runs made; empty keeps none.
    """
    with report_end("continuous_training", webhook):
        start = resolve_start(
            ingestion, encoding, data_fingerprint, registry, champion, first_model=first_model
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
        )
        model = train_towers(
            settings=training,
            features=tables.outputs["features"],
            checkpoint_folder=checkpoint_folder,
        )
        index = index_listings(
            settings=indexing, features=tables.outputs["features"], model=model.outputs["model"]
        )
        champion_tables = build_champion_tables(
            settings=features,
            dataset=data.outputs["dataset"],
            encoded=vectors.outputs["encoded"],
            registry=registry,
            champion=champion,
        ).after(index)
        evaluated = evaluate_model(
            settings=evaluation,
            champion_features=champion_tables.outputs["champion_features"],
            features=tables.outputs["features"],
            model=model.outputs["model"],
            index=index.outputs["index"],
            registry=registry,
            champion=champion,
        )
        verdict = gate(evaluation=evaluated.outputs["evaluation"])
        verdict.set_caching_options(False)
        # A refused bundle is whole, too, so that a person can promote it as it is.
        drift = calibrate_drift(
            settings=monitoring,
            dataset=data.outputs["dataset"],
            index=index.outputs["index"],
            evaluation=evaluated.outputs["evaluation"],
        ).after(verdict)
        # kfp's local runner resolves a condition on a task's single output only; it silently
        # takes a named output for false (kfp 2.17).
        with dsl.If(verdict.output == True, name="the gate passed"):  # noqa: E712
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
                first_model=first_model,
            )
            deployed.set_caching_options(False)
        with dsl.If(verdict.output == False, name="the gate refused"):  # noqa: E712
            kept = keep_refused_bundle(
                settings=deployment,
                features=tables.outputs["features"],
                dataset=data.outputs["dataset"],
                model=model.outputs["model"],
                index=index.outputs["index"],
                evaluation=evaluated.outputs["evaluation"],
                reference=drift.outputs["reference"],
                registry=registry,
            )
            kept.set_caching_options(False)
    configure_steps()
