"""The reporting step as a Kubeflow Pipelines component."""

from kfp import dsl

from components.images import MAIN_IMAGE


@dsl.component(base_image=MAIN_IMAGE, install_kfp_package=False)
def report_run(status: dsl.PipelineTaskFinalStatus, pipeline: str, webhook: str = "") -> None:
    """Report the outcome of the run; runs also when a step failed.

    Args:
        status: Filled in by Kubeflow Pipelines.
        pipeline: Name of the pipeline.
        webhook: URL to post the outcome to; empty for none.
    """
    from components.reporting.report import report_end
    from components.step import running

    with running("report") as metadata:
        metadata["state"] = status.state
        report_end(pipeline, status.state, status.error_message or "", webhook)
