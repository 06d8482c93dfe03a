"""backtest: the same settings at several cuts of the past, judged together; deploys nothing."""

from kfp import dsl

from components.encoding.component import encode_listings
from components.evaluation.component import evaluate_model, judge_backtest, summarize_fit
from components.features.component import build_champion_tables, build_feature_tables
from components.indexing.component import index_listings
from components.ingestion.component import ingest_data, plan_backtest
from components.training.component import train_towers
from pipelines.cluster.platform import at_once, configure_steps, report_end, resolve_start


@dsl.pipeline(name="backtest")
def backtest(
    ingestion: str,
    features: str,
    training: str,
    indexing: str,
    evaluation: str,
    backtest: str,
    data_fingerprint: str,
    registry: str,
    champion: str = "",
    checkpoint_folder: str = "",
    webhook: str = "",
    encoding: str = "{}",
    vector_store: str = "",
) -> None:
    """Fit and evaluate the same settings at several cuts, and judge them together.

    Args:
        ingestion: IngestSettings, as JSON.
        features: FeatureSettings.
        training: TrainSettings.
        indexing: IndexSettings.
        evaluation: EvaluationSettings.
        backtest: BacktestSettings.
        data_fingerprint: Fingerprint of source files and ingestion settings; the cache key.
        registry: Folder or URL of the registry, whose ledger keeps every judgement.
        champion: Id of the champion; it is compared where it was not trained on the window.
        checkpoint_folder: Folder of checkpoints that an interrupted training resumes from.
        webhook: URL that is called when the run has ended, empty for none.
        encoding: EncodingPlan; the default encodes nothing.
        vector_store: Folder or URL of the vectors that earlier runs made; empty keeps none.
    """
    with report_end("backtest", webhook):
        start = resolve_start(
            ingestion, encoding, data_fingerprint, registry, champion, deploys=False
        )
        plan = plan_backtest(
            settings=backtest,
            ingestion=start.ingestion,
            training=training,
            fingerprint=start.fingerprint,
            registry=registry,
            champion=start.champion,
        )
        with dsl.ParallelFor(plan.output, parallelism=at_once(), name="every cut") as fit:
            data = ingest_data(settings=fit.ingestion, fingerprint=start.fingerprint)
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
                settings=fit.training,
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
                champion=fit.champion,
            ).after(index)
            evaluated = evaluate_model(
                settings=evaluation,
                champion_features=champion_tables.outputs["champion_features"],
                features=tables.outputs["features"],
                model=model.outputs["model"],
                index=index.outputs["index"],
                registry=registry,
                champion=fit.champion,
            )
            measured = summarize_fit(
                evaluation=evaluated.outputs["evaluation"],
                cut=fit.cut,
                seed=fit.seed,
                champion_state=fit.champion_state,
            )
        verdict = judge_backtest(settings=backtest, fits=dsl.Collected(measured.output))
        verdict.set_caching_options(False)
    configure_steps()
