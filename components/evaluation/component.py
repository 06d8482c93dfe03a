"""The evaluation step and its gate as Kubeflow Pipelines components."""

from kfp import dsl

from components.images import MAIN_IMAGE


@dsl.component(base_image=MAIN_IMAGE, install_kfp_package=False)
def evaluate_model(
    settings: str,
    features: dsl.Input[dsl.Dataset],
    model: dsl.Input[dsl.Model],
    index: dsl.Input[dsl.Artifact],
    evaluation: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    report: dsl.Output[dsl.HTML],
    summary: dsl.Output[dsl.Markdown],
    champion_features: dsl.Input[dsl.Dataset],
    registry: str = "",
    champion: str = "",
) -> None:
    """Evaluate a model against baselines and champion.

    Args:
        settings: EvaluationSettings as JSON.
        features: The feature step's folder.
        model: The training step's folder.
        index: The indexing step's folder.
        evaluation: Folder of metrics, verdict, report and offline predictions.
        metrics: The measurements of the gate's checks, for the run page.
        report: The report as HTML.
        summary: The report as Markdown.
        registry: Folder or URL of the registry: its ledger counts the looks at the test window.
        champion_features: What the feature step wrote for the champion.
        champion: Id of the champion's bundle; empty if there is none yet.
    """
    import shutil
    from pathlib import Path

    from components.evaluation.earlier import find_best_earlier
    from components.evaluation.evaluate import evaluate
    from components.evaluation.settings import EvaluationSettings
    from components.step import running
    from refit.files import write_json
    from refit.registry import Registry

    with running("evaluate") as metadata:
        out = Path(evaluation.path)
        parsed, store = EvaluationSettings.parse_json(settings), Registry(registry)
        verdict = evaluate(
            parsed,
            Path(features.path),
            Path(model.path),
            Path(index.path),
            out,
            champion=store.get(champion).path if champion else None,
            earlier=find_best_earlier(store, champion, parsed) if champion else None,
            registry=registry,
            champion_features=Path(champion_features.path),
        )
        shutil.copyfile(out / "report.html", report.path)
        shutil.copyfile(out / "report.md", summary.path)
        for name, value in verdict.measurements.items():
            if value is not None:
                metrics.log_metric(name, value)
        # kfp's local cache drops a step that wrote no file for one of its artifacts.
        write_json(Path(metrics.path), dict(verdict.measurements))
        metadata["measurements"] = dict(verdict.measurements)


@dsl.component(base_image=MAIN_IMAGE, install_kfp_package=False)
def summarize_fit(
    evaluation: dsl.Input[dsl.Artifact], cut: str, seed: str, champion_state: str
) -> str:
    """Return what a fit of a backtest measured, as JSON.

    Args:
        evaluation: The evaluation step's folder.
        cut: End of the cut's test window.
        seed: The seed of the training.
        champion_state: Whether the champion was compared.
    """
    from pathlib import Path

    from components.evaluation.backtest import read_fit
    from components.step import running

    with running("summarize"):
        fit = read_fit(Path(evaluation.path), cut, seed, champion_state)
    return fit.model_dump_json()


@dsl.component(base_image=MAIN_IMAGE, install_kfp_package=False)
def judge_backtest(
    settings: str,
    fits: list[str],
    backtest: dsl.Output[dsl.Artifact],
    report: dsl.Output[dsl.HTML],
    summary: dsl.Output[dsl.Markdown],
) -> bool:
    """Apply the rule over the cuts of a backtest; returns whether it passes.

    Args:
        settings: BacktestSettings as JSON.
        fits: What every fit measured, each as JSON.
        backtest: Folder of results, verdict and report.
        report: The report as HTML.
        summary: The report as Markdown.
    """
    import shutil
    from pathlib import Path

    from components.evaluation.backtest import judge_cuts
    from components.step import running
    from refit.backtest import BacktestSettings, FitResult
    from refit.progress import log_message

    with running("judge") as metadata:
        out = Path(backtest.path)
        parsed = [FitResult.model_validate_json(fit) for fit in fits]
        verdict = judge_cuts(BacktestSettings.parse_json(settings), parsed, out)
        shutil.copyfile(out / "report.html", report.path)
        shutil.copyfile(out / "report.md", summary.path)
        metadata["passed"] = verdict.passed
        metadata["reasons"] = list(verdict.reasons)
        metadata["backtest"] = str(out)
        log_message("[judge] " + ("passed" if verdict.passed else "refused"))
        for reason in verdict.reasons:
            log_message(f"[judge] {reason}")
    return verdict.passed


@dsl.component(base_image=MAIN_IMAGE, install_kfp_package=False)
def gate(evaluation: dsl.Input[dsl.Artifact]) -> bool:
    """Log the verdict and return whether it passed; never cached, so that every run logs it.

    Args:
        evaluation: The evaluation step's folder.
    """
    from pathlib import Path

    from components.step import running
    from refit.files import read_json
    from refit.progress import log_message
    from refit.verdict import Verdict

    with running("gate") as metadata:
        folder = Path(evaluation.path)
        verdict = Verdict.parse(read_json(folder / "verdict.json"))
        metadata["passed"] = verdict.passed
        metadata["reasons"] = list(verdict.reasons)
        metadata["evaluation"] = str(folder)
        metadata["outcome"] = verdict.outcome
        log_message(f"[gate] {verdict.outcome}")
        for reason in verdict.reasons:
            log_message(f"[gate] {reason}")
    return verdict.passed
