"""The encoding step as Kubeflow Pipelines components."""

from kfp import dsl

from components.images import MAIN_IMAGE


@dsl.component(base_image=MAIN_IMAGE, install_kfp_package=False)
def plan_encoding(
    settings: str, registry: str, champion: str = "", keeps_towers: bool = False
) -> str:
    """Find the encoders of a run, on a cluster, where only steps can read their files.

    Args:
        settings: EncodingPlan as JSON, with settings only.
        registry: Where bundles are kept.
        champion: Id of the champion; empty if there is none.
        keeps_towers: Whether the run keeps the champion's towers, and so its encoders.
    """
    from components.encoding.plan import EncodingPlan, plan_run
    from components.step import running

    with running("plan_encoding"):
        plan = plan_run(
            EncodingPlan.parse_json(settings).settings, registry, champion, keeps_towers
        )
    return plan.to_json()


@dsl.component(base_image=MAIN_IMAGE, install_kfp_package=False)
def encode_listings(
    plan: str,
    dataset: dsl.Input[dsl.Dataset],
    encoded: dsl.Output[dsl.Dataset],
    store: str = "",
) -> None:
    """Encode the texts and pictures of the items; without an encoder it does nothing.

    Args:
        plan: EncodingPlan as JSON.
        dataset: The ingestion step's folder.
        encoded: Output folder: the vectors, and a record of what made them.
        store: Folder or URL of the vectors that earlier runs made; empty keeps none.
    """
    from pathlib import Path

    from components.encoding.encode import encode_items
    from components.encoding.plan import EncodingPlan
    from components.step import running

    with running("encode") as metadata:
        record = encode_items(
            EncodingPlan.parse_json(plan), Path(dataset.path), Path(encoded.path), store
        )
        metadata["rows"], metadata["encoded"] = record.rows, record.encoded
        if record.encoding is not None:
            metadata["encoder_version"] = record.encoding.encoder_version
            encoded.metadata["encoder_version"] = record.encoding.encoder_version
