"""The registry: every bundle, which one is champion, and who made it so.

A local folder and an object store (any fsspec URL) are laid out the same::

    bundles/<bundle_id>/...   immutable
    champion.json             the latest Promotion; replacing it is what promotes
    history.jsonl             every Promotion, oldest first: the audit trail
    candidate.json            the latest Proposal, where bundles go live by a rollout
    rollouts/<id>.json        the RolloutDecision that ended a rollout, one each

champion.json is the truth. A writer killed before its history line was written loses nothing:
the line is taken from champion.json by the next reader or writer.
"""

import fcntl
import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Literal

import fsspec
from fsspec.implementations.local import LocalFileSystem

from refit.bundle import MANIFEST_FILE, Bundle, BundleManifest, load_bundle
from refit.errors import GateRefused, RefitError, ServiceUnreachable, UsageError
from refit.files import remove, write_atomically
from refit.progress import log_message
from refit.rollout import Proposal, RolloutDecision
from refit.settings import Settings

CHAMPION_FILE = "champion.json"
HISTORY_FILE = "history.jsonl"
CANDIDATE_FILE = "candidate.json"
ROLLOUTS_FOLDER = "rollouts"
LOCK_FILE = ".lock"
LOCK_EXPIRES_SECONDS = 60.0
LEFTOVER_SECONDS = 86_400.0
DEFAULT_CACHE = Path.home() / ".cache" / "refit" / "bundles"


class Promotion(Settings):
    """One change of champion.

    Attributes:
        number: 1 for the first; every change counts one up.
        previous: The champion before; for a roll back, what a further one leads to.
        forced: Promoted without a passed verdict; ``reason`` says why.
    """

    number: int
    action: Literal["promote", "rollback"]
    bundle_id: str
    previous: str | None
    at: datetime
    by: str
    reason: str
    forced: bool = False


class Registry:
    """Bundles under one local folder or fsspec URL.

    Args:
        url: A folder, or an URL such as ``s3://bucket/registry``.
        cache: Where bundles of a remote registry are kept on this machine.
    """

    def __init__(self, url: str | Path, cache: Path = DEFAULT_CACHE) -> None:
        self.fs, self.root = fsspec.core.url_to_fs(str(url))
        self.is_local = isinstance(self.fs, LocalFileSystem)
        self.cache = cache

    def add(self, bundle: Bundle) -> str:
        """Copy a bundle into the registry; one that is there already is left as it is.

        Returns:
            The bundle's id.

        Raises:
            RefitError: The bundle is broken.
        """
        load_bundle(bundle.path)
        if not self._holds(bundle.bundle_id):
            target = self._at("bundles", bundle.bundle_id)
            if self.is_local:
                with _placed_once(Path(target)) as staging:
                    shutil.copytree(bundle.path, staging)
            else:
                # An object store cannot rename: the manifest, written last, makes it a bundle.
                for name in (*bundle.manifest.checksums, MANIFEST_FILE):
                    self.fs.put_file(str(bundle.path / name), f"{target}/{name}")
        return bundle.bundle_id

    def list(self) -> tuple[str, ...]:
        """Ids of the complete bundles, oldest first."""
        with self._reaching():
            self.fs.invalidate_cache()
            manifests = self.fs.glob(self._at("bundles", "*", MANIFEST_FILE))
        ids = (PurePosixPath(path).parent.name for path in manifests)
        return tuple(sorted(name for name in ids if not name.startswith(".")))

    def get(self, bundle_id: str) -> Bundle:
        """Open a bundle, verified; a remote one is downloaded once and then kept in the cache.

        Raises:
            UsageError: There is no such bundle; the message lists the latest ones.
            RefitError: The bundle is broken.
        """
        local = self.cache / bundle_id
        if not self.is_local and local.exists():
            return load_bundle(local)
        if not self._holds(bundle_id):
            latest = ", ".join(self.list()[-5:]) or "none"
            raise UsageError(f"no bundle {bundle_id!r} in {self.root}; the latest: {latest}")
        if self.is_local:
            return load_bundle(Path(self._at("bundles", bundle_id)))
        with self._reaching():
            self._download(bundle_id, local)
        return load_bundle(local)

    def champion(self) -> Promotion | None:
        """The promotion in force; None when nothing was promoted yet.

        Raises:
            RefitError: champion.json cannot be read as one.
        """
        text = self._read(CHAMPION_FILE)
        return None if text is None else self._parse(Promotion, text, CHAMPION_FILE)

    def champion_id(self) -> str:
        """Id of the champion; "" when nothing was promoted yet."""
        promotion = self.champion()
        return promotion.bundle_id if promotion else ""

    def needed_champion_id(self) -> str:
        """Id of the champion.

        Raises:
            UsageError: Nothing was promoted yet.
        """
        if champion := self.champion_id():
            return champion
        raise UsageError(
            f"no champion in {self.root} yet: refit run continuous_training makes one, and "
            "refit bundles promote chooses one"
        )

    def promote(self, bundle_id: str, by: str, reason: str, force: bool = False) -> Promotion:
        """Make a bundle the champion; promoting the champion again changes nothing.

        Args:
            bundle_id: A bundle of this registry.
            by: Who does it: a person, or a pipeline run.
            reason: Why; goes to the audit trail.
            force: Promote without a passed verdict.

        Raises:
            GateRefused: The bundle's verdict is missing or did not pass.
            UsageError: There is no such bundle, or ``by`` or ``reason`` is empty.
        """
        refusal = self._refusal(bundle_id)
        if refusal and not force:
            raise GateRefused(
                f"bundle {bundle_id} is not promoted: {refusal}. "
                "To promote it all the same, force it and give the reason."
            )
        with self._lock():
            champion = self.champion()
            if champion and champion.bundle_id == bundle_id:
                return champion
            previous = champion.bundle_id if champion else None
            forced = bool(refusal)
            return self._change("promote", bundle_id, previous, by, reason, forced)

    def rollback(self, by: str, reason: str) -> Promotion:
        """Make the champion's predecessor champion again; repeated, it goes further back.

        Raises:
            UsageError: There is nothing to go back to, or ``by`` or ``reason`` is empty.
            RefitError: The predecessor is broken or was pruned.
        """
        champion = self.champion()
        if champion is None or champion.previous is None:
            raise UsageError("there is no earlier champion to roll back to")
        target = self.get(champion.previous).bundle_id
        with self._lock():
            if self.champion() != champion:
                raise RefitError("the champion was changed by somebody else meanwhile; look again")
            earlier = [p for p in self.history() if p.bundle_id == target]
            previous = earlier[-1].previous if earlier else None
            return self._change("rollback", target, previous, by, reason, forced=False)

    def propose(self, bundle_id: str, champion: str, by: str, reason: str) -> Proposal:
        """Ask for a bundle to be rolled out; it takes the place of an earlier proposal.

        Done again for the same bundle before its rollout has ended, it changes nothing.

        Args:
            bundle_id: A bundle of this registry.
            champion: Whom its gate compared it with, "" when there was none.
            by: Who asks: a person, or a pipeline run.
            reason: Why; goes to the audit trail.

        Raises:
            GateRefused: The bundle's verdict is missing or did not pass.
            UsageError: There is no such bundle, or ``by`` or ``reason`` is empty.
        """
        if refusal := self._refusal(bundle_id):
            raise GateRefused(f"bundle {bundle_id} is not rolled out: {refusal}")
        _check_audit(by, reason)
        with self._lock():
            standing = self.candidate()
            if standing and standing.bundle_id == bundle_id and standing.champion == champion:
                return standing
            proposal = Proposal(
                bundle_id=bundle_id, champion=champion, at=datetime.now(UTC), by=by, reason=reason
            )
            self._write(CANDIDATE_FILE, proposal.model_dump_json(indent=2) + "\n")
        log_message(f"{bundle_id} is proposed by {by}: {reason}")
        return proposal

    def candidate(self) -> Proposal | None:
        """The proposal whose rollout has not ended; None when there is none."""
        text = self._read(CANDIDATE_FILE)
        proposal = None if text is None else self._parse(Proposal, text, CANDIDATE_FILE)
        if proposal is None or self.decision(proposal.rollout_id):
            return None
        return proposal

    def decide(self, decision: RolloutDecision) -> RolloutDecision:
        """Keep how a rollout ended; what was kept first stands, and is returned."""
        with self._lock():
            kept = self.decision(decision.rollout_id)
            if kept is None:
                name = f"{ROLLOUTS_FOLDER}/{decision.rollout_id}.json"
                self._write(name, decision.model_dump_json(indent=2) + "\n")
        return kept or decision

    def decision(self, rollout_id: str) -> RolloutDecision | None:
        """How a rollout ended; None while it has not."""
        name = f"{ROLLOUTS_FOLDER}/{rollout_id}.json"
        text = self._read(name)
        return None if text is None else self._parse(RolloutDecision, text, name)

    def decisions(self) -> tuple[RolloutDecision, ...]:
        """How every rollout ended, oldest first."""
        with self._reaching():
            self.fs.invalidate_cache()
            paths = sorted(self.fs.glob(self._at(ROLLOUTS_FOLDER, "*.json")))
        found = (self.decision(PurePosixPath(path).stem) for path in paths)
        return tuple(one for one in found if one)

    def history(self) -> tuple[Promotion, ...]:
        """Every change of champion, oldest first."""
        champion = self.champion()  # first: what is changed meanwhile is then in the lines
        promotions = self._read_history()
        if champion and all(p.number != champion.number for p in promotions):
            return (*promotions, champion)
        return promotions

    def prune(self, keep: int) -> tuple[str, ...]:
        """Remove the oldest bundles, never champion, candidate, nor what a roll back leads to.

        What killed writers left in a local folder goes as well, once it is a day old.

        Args:
            keep: How many of the newest bundles stay in any case.

        Returns:
            Ids of the removed bundles.
        """
        with self._lock():
            champion = self.champion()
            needed = {champion.bundle_id, champion.previous} if champion else set()
            if candidate := self.candidate():
                needed |= {candidate.bundle_id}
            ids = self.list()
            removed = tuple(i for i in ids[: max(len(ids) - keep, 0)] if i not in needed)
            for bundle_id in removed:
                # Without its manifest a half removed bundle is none.
                self.fs.rm_file(self._at("bundles", bundle_id, MANIFEST_FILE))
                self.fs.rm(self._at("bundles", bundle_id), recursive=True)
            if self.is_local:
                self._sweep()
        return removed

    def _sweep(self) -> None:
        for path in Path(self._at("bundles")).glob("*"):
            torn = path.name.startswith(".") or not (path / MANIFEST_FILE).exists()
            if torn and time.time() - path.stat().st_mtime > LEFTOVER_SECONDS:
                remove(path)

    def _change(
        self,
        action: Literal["promote", "rollback"],
        bundle_id: str,
        previous: str | None,
        by: str,
        reason: str,
        forced: bool,
    ) -> Promotion:
        _check_audit(by, reason)
        history = self.history()
        promotion = Promotion(
            number=history[-1].number + 1 if history else 1,
            action=action,
            bundle_id=bundle_id,
            previous=previous,
            at=datetime.now(UTC),
            by=by,
            reason=reason,
            forced=forced,
        )
        self._write_history(history)  # a line that a killed writer left out is made up for here
        self._write(CHAMPION_FILE, promotion.model_dump_json(indent=2) + "\n")
        self._write_history((*history, promotion))
        log_message(f"champion is now {bundle_id} ({action} by {by}: {reason})")
        return promotion

    def _read_history(self) -> tuple[Promotion, ...]:
        lines = (self._read(HISTORY_FILE) or "").splitlines()
        return tuple(self._parse(Promotion, line, HISTORY_FILE) for line in lines)

    def _write_history(self, promotions: tuple[Promotion, ...]) -> None:
        self._write(HISTORY_FILE, "".join(p.model_dump_json() + "\n" for p in promotions))

    def _refusal(self, bundle_id: str) -> str:
        """Why a bundle's own gate does not let it through; "" when it does."""
        verdict = self.get(bundle_id).read_verdict()
        if verdict is None:
            return "it has no verdict"
        return "" if verdict.passed else "; ".join(verdict.reasons) or "its verdict did not pass"

    def _parse[T: Settings](self, kind: type[T], text: str, name: str) -> T:
        try:
            return kind.model_validate_json(text)
        except ValueError as error:
            raise RefitError(f"{self._at(name)} cannot be read: {error}") from None

    def _at(self, *parts: str) -> str:
        return "/".join((self.root.rstrip("/"), *parts))

    def _holds(self, bundle_id: str) -> bool:
        with self._reaching():
            self.fs.invalidate_cache()
            return bool(self.fs.exists(self._at("bundles", bundle_id, MANIFEST_FILE)))

    def _read(self, name: str) -> str | None:
        with self._reaching():
            try:
                return bytes(self.fs.cat_file(self._at(name))).decode()
            except FileNotFoundError:
                return None

    def _write(self, name: str, text: str) -> None:
        if self.is_local:
            with write_atomically(Path(self._at(name))) as staging:
                staging.write_text(text, encoding="utf-8")
        else:
            self.fs.pipe_file(self._at(name), text.encode())

    def _download(self, bundle_id: str, target: Path) -> None:
        source = self._at("bundles", bundle_id)
        manifest = BundleManifest.parse(json.loads(self.fs.cat_file(f"{source}/{MANIFEST_FILE}")))
        with _placed_once(target) as staging:
            for name in (*manifest.checksums, MANIFEST_FILE):
                (staging / name).parent.mkdir(parents=True, exist_ok=True)
                self.fs.get_file(f"{source}/{name}", str(staging / name))
            load_bundle(staging)

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        try:
            yield
        except RefitError:
            raise
        except Exception as error:
            if self.is_local:
                raise
            raise ServiceUnreachable(f"registry {self.root} cannot be reached: {error}") from error

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """One writer at a time; a lock that its writer died with does not last."""
        if self.is_local:
            Path(self.root).mkdir(parents=True, exist_ok=True)
            with Path(self._at(LOCK_FILE)).open("w") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                yield
            return
        path = self._at(LOCK_FILE)
        while not self._create(path):
            time.sleep(0.1)
        try:
            yield
        finally:
            self.fs.rm_file(path)

    def _create(self, path: str) -> bool:
        try:
            self.fs.pipe_file(path, str(time.time()).encode(), mode="create")
        except FileExistsError:
            self._expire(path)
            return False
        return True

    def _expire(self, path: str) -> None:
        try:
            if time.time() - float(self.fs.cat_file(path)) > LOCK_EXPIRES_SECONDS:
                self.fs.rm_file(path)
        except FileNotFoundError:
            return


def _check_audit(by: str, reason: str) -> None:
    if not by.strip() or not reason.strip():
        raise UsageError("a change of champion needs a name and a reason for the audit trail")


@contextmanager
def _placed_once(target: Path) -> Iterator[Path]:
    """Write a folder atomically; another process that was first with the same one is no error."""
    try:
        with write_atomically(target) as staging:
            yield staging
    except OSError:
        if not (target / MANIFEST_FILE).exists():
            raise
