"""refit bundles: list, show, promote, roll back, unblock."""

from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.cli.cluster import ClusterOption
from pipelines.cli.live import reporting
from pipelines.cli.options import HomeOption, JsonOption, RegistryOption
from pipelines.cli.output import write_json, write_line, write_progress, write_table
from pipelines.cli.rollout import SecondsOption, open_rollouts
from pipelines.home import Home
from refit.bundle import load_bundle
from refit.registry import Registry

if TYPE_CHECKING:
    from components.deployment.rollout import Rollouts

bundles = typer.Typer(
    no_args_is_help=True, help="Bundles: models, index and data that are deployed together."
)

ADDED_BY = "refit run adds one when its gate passes"

BundleArgument = Annotated[str, typer.Argument(help="Id of the bundle, from refit bundles list.")]
ReasonOption = Annotated[str, typer.Option(help="Why it is done; kept in the audit trail.")]
ByOption = Annotated[str, typer.Option(help="Your name; kept in the audit trail.", envvar="USER")]


@bundles.command("list")
def list_bundles(
    home: HomeOption = None, registry: RegistryOption = "", as_json: JsonOption = False
) -> None:
    """List the bundles, oldest first, each with its role.

    A refused bundle did not pass its gate. A superseded one was replaced by a later one. Both need
    refit bundles promote --force. A blocked one was rolled back and needs refit bundles unblock. A
    baseline is served as itself, until a model passes.
    """
    store = Registry(Home.at(home, registry).registry)
    rows = [
        {"bundle_id": name, "role": role, "kind": store.kind(name)}
        for name, role in store.roles().items()
    ]
    if as_json:
        write_json(rows)
    else:
        write_table(
            "Bundles",
            ("bundle", "role"),
            ((row["bundle_id"], _describe_role(row["role"], row["kind"])) for row in rows),
            when_empty=f"no bundles in {store.root} yet: {ADDED_BY}",
        )


@bundles.command("show")
def show_bundle(
    bundle_id: BundleArgument,
    home: HomeOption = None,
    registry: RegistryOption = "",
    as_json: JsonOption = False,
) -> None:
    """Show what a bundle was built from, and its verdict.

    Verifies every checksum.
    """
    bundle = load_bundle(Registry(Home.at(home, registry).registry).get(bundle_id).path)
    verdict = bundle.read_verdict()
    if as_json:
        write_json(
            {
                "manifest": bundle.manifest.model_dump(mode="json"),
                "verdict": verdict.model_dump(mode="json") if verdict else None,
            }
        )
        return
    manifest = bundle.manifest
    write_table(
        bundle_id,
        ("property", "value"),
        [
            ("created", manifest.created_at),
            ("kind", manifest.kind),
            ("towers", manifest.embedding_version[:12]),
            ("index as of", manifest.as_of),
            ("trained on", f"{manifest.trained_from} .. {manifest.trained_until}"),
            ("dataset", manifest.dataset_fingerprint[:12]),
            ("files", len(manifest.checksums)),
            ("verdict", "none" if verdict is None else verdict.outcome),
        ],
    )
    for reason in verdict.reasons if verdict else ():
        write_line(reason)


@bundles.command("promote")
def promote(
    bundle_id: BundleArgument,
    reason: ReasonOption,
    by: ByOption = "",
    force: Annotated[
        bool, typer.Option(help="Promote a bundle that was refused or superseded.")
    ] = False,
    home: HomeOption = None,
    registry: RegistryOption = "",
    cluster: ClusterOption = None,
    seconds: SecondsOption = 300.0,
) -> None:
    """Make a bundle the champion.

    A running server loads it within seconds. On a cluster the pods are replaced one by one,
    without a canary. To compare it with the champion first, use refit rollout start. --force is
    kept in the audit trail. It does not lift a block; refit bundles unblock does.
    """
    if cluster:
        rollouts = open_rollouts(cluster)
        write_progress(rollouts.promote(bundle_id, by, reason, force).message)
        _wait_until_stable(rollouts, seconds)
        return
    promotion = Registry(Home.at(home, registry).registry).promote(bundle_id, by, reason, force)
    write_line(f"champion: {promotion.bundle_id}")


@bundles.command("rollback")
def roll_back(
    reason: ReasonOption,
    by: ByOption = "",
    home: HomeOption = None,
    registry: RegistryOption = "",
    cluster: ClusterOption = None,
    seconds: SecondsOption = 300.0,
) -> None:
    """Make the previous champion the champion again.

    Nothing is trained, and the change is kept in the audit trail. The model that served is blocked:
    it is not deployed again until refit bundles unblock lifts the block. On a cluster, a rollout in
    progress is aborted instead. After a kill, run it again.
    """
    if cluster:
        rollouts = open_rollouts(cluster)
        write_progress(rollouts.roll_back(by, reason).message)
        _wait_until_stable(rollouts, seconds)
        return
    promotion = Registry(Home.at(home, registry).registry).rollback(by, reason)
    write_line(f"champion: {promotion.bundle_id}")


@bundles.command("unblock")
def unblock(
    bundle_id: BundleArgument,
    reason: ReasonOption,
    by: ByOption = "",
    home: HomeOption = None,
    registry: RegistryOption = "",
) -> None:
    """Lift the block of a model that was rolled back.

    It can then be promoted again. The lifting is kept in the registry.
    """
    Registry(Home.at(home, registry).registry).unblock(bundle_id, by, reason)
    write_line(f"{bundle_id} is no longer blocked")


@bundles.command("coordinate")
def coordinate(
    database: Annotated[
        str,
        typer.Argument(
            help="postgresql+psycopg://USER@HOST/DATABASE; its password is in PGPASSWORD."
        ),
    ],
    home: HomeOption = None,
    registry: RegistryOption = "",
) -> None:
    """Name a database by which all writers of a registry agree.

    Only needed for an object store without conditional writes; Refit says so. Call it while nothing
    else writes to the registry.
    """
    store = Registry(Home.at(home, registry).registry)
    store.coordinate(database)
    write_line(f"changes of {store.root} are agreed upon in {database}")


@bundles.command("history")
def show_history(
    home: HomeOption = None, registry: RegistryOption = "", as_json: JsonOption = False
) -> None:
    """List every change of champion: when, by whom and why."""
    changes = Registry(Home.at(home, registry).registry).history()
    if as_json:
        write_json([change.model_dump(mode="json") for change in changes])
        return
    write_table(
        "Changes of champion",
        ("when", "action", "bundle", "by", "reason"),
        ((f"{c.at:%Y-%m-%d %H:%M:%S}", c.action, c.bundle_id, c.by, c.reason) for c in changes),
        when_empty=f"no champion yet: {ADDED_BY}",
    )


def _describe_role(role: str, kind: str) -> str:
    """A bundle's role, and whether it is a baseline."""
    return ", ".join(filter(None, (role, "a baseline" if kind == "baseline" else "")))


def _wait_until_stable(rollouts: "Rollouts", seconds: float) -> None:
    """Wait until the pods serve the champion alone, and print it."""
    with reporting("wait until the pods serve the champion"):
        champion = rollouts.wait_until_stable(seconds)
    write_line(f"champion: {champion}")
