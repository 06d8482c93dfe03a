"""The registry: all bundles, the current champion, and the audit trail of promotions.

A local folder and an object store (any fsspec URL) have the same layout::

    bundles/<bundle_id>/...   immutable
    champion.json             the latest Promotion; a promotion replaces this file
    history.jsonl             all Promotions, oldest first: the audit trail
    candidate.json            the latest Proposal, if bundles go live by a rollout
    rollouts/<id>.json        the RolloutDecision of each finished rollout

champion.json is authoritative. If a writer is killed before it appended to the history, the next
reader or writer takes the missing line from champion.json.
"""

import fcntl
import json
import shutil
import time
from collections.abc import Collection, Iterator
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
    """One change of the champion.

    Attributes:
        number: Consecutive number, starting at 1.
        action: ``promote`` or ``rollback``.
        bundle_id: The new champion.
        previous: The bundle that a roll back would return to; None if there is none.
        at: Time of the change.
        by, reason: Author and reason.
        forced: Whether it was promoted without a passed verdict.
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
    """Bundles in a local folder or at an fsspec URL.

    Args:
        url: A folder, or a URL such as ``s3://bucket/registry``.
        cache: Local folder in which bundles of a remote registry are cached.
    """

    def __init__(self, url: str | Path, cache: Path = DEFAULT_CACHE) -> None:
        self.fs, self.root = fsspec.core.url_to_fs(str(url))
        self.is_local = isinstance(self.fs, LocalFileSystem)
        self.cache = cache

    def add(self, bundle: Bundle) -> str:
        """Copy a bundle into the registry, unless the registry already contains it.

        Returns:
            The bundle's id.

        Raises:
            RefitError: The bundle is corrupt.
        """
        load_bundle(bundle.path)
        if not self._holds(bundle.bundle_id):
            target = self._at("bundles", bundle.bundle_id)
            if self.is_local:
                with _placed_once(Path(target)) as staging:
                    shutil.copytree(bundle.path, staging)
            else:
                # Object stores cannot rename. A bundle is complete when its manifest exists, which
                # is therefore written last.
                for name in (*bundle.manifest.checksums, MANIFEST_FILE):
                    self.fs.put_file(str(bundle.path / name), f"{target}/{name}")
        return bundle.bundle_id

    def list(self) -> tuple[str, ...]:
        """Ids of all complete bundles, oldest first."""
        with self._translated_errors():
            self.fs.invalidate_cache()
            manifests = self.fs.glob(self._at("bundles", "*", MANIFEST_FILE))
        ids = (PurePosixPath(path).parent.name for path in manifests)
        return tuple(sorted(name for name in ids if not name.startswith(".")))

    def get(self, bundle_id: str) -> Bundle:
        """Open and verify a bundle; a remote bundle is downloaded into the cache first.

        Raises:
            UsageError: The bundle does not exist; the message lists the latest ones.
            RefitError: The bundle is corrupt.
        """
        local = self.cache / bundle_id
        if not self.is_local and local.exists():
            return load_bundle(local)
        if not self._holds(bundle_id):
            latest = ", ".join(self.list()[-5:]) or "none"
            raise UsageError(f"no bundle {bundle_id!r} in {self.root}; the latest: {latest}")
        if self.is_local:
            return load_bundle(Path(self._at("bundles", bundle_id)))
        with self._translated_errors():
            self._download(bundle_id, local)
        return load_bundle(local)

    def read_file(self, bundle_id: str, name: str) -> str | None:
        """Read one file of a bundle, without its checksum; None if there is none.

        Args:
            bundle_id: A bundle of this registry.
            name: The file's path inside the bundle.
        """
        return self._read(f"bundles/{bundle_id}/{name}")

    def champion(self) -> Promotion | None:
        """The promotion of the current champion; None if nothing was promoted yet.

        Raises:
            RefitError: champion.json is invalid.
        """
        text = self._read(CHAMPION_FILE)
        return None if text is None else self._parse(Promotion, text, CHAMPION_FILE)

    def champion_id(self) -> str:
        """Id of the champion; "" if nothing was promoted yet."""
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
            f"no champion in {self.root} yet: train one with refit run continuous_training, or "
            "promote a bundle with refit bundles promote"
        )

    def promote(self, bundle_id: str, by: str, reason: str, force: bool = False) -> Promotion:
        """Make a bundle the champion; has no effect if it already is.

        Args:
            bundle_id: A bundle of this registry.
            by: Author, recorded in the audit trail: a user or a pipeline run.
            reason: Recorded in the audit trail.
            force: Promote even without a passed verdict.

        Raises:
            GateRefused: The bundle's verdict is missing or did not pass.
            UsageError: The bundle does not exist, or ``by`` or ``reason`` is empty.
        """
        refusal = self._refusal(bundle_id)
        if refusal and not force:
            raise GateRefused(
                f"bundle {bundle_id} is not promoted: {refusal}. "
                "To promote it anyway, force it and give a reason."
            )
        with self._lock():
            champion = self.champion()
            if champion and champion.bundle_id == bundle_id:
                return champion
            previous = champion.bundle_id if champion else None
            forced = bool(refusal)
            return self._change("promote", bundle_id, previous, by, reason, forced)

    def rollback(self, by: str, reason: str) -> Promotion:
        """Make the champion's predecessor champion again; each call goes one champion back.

        Raises:
            UsageError: There is no predecessor, or ``by`` or ``reason`` is empty.
            RefitError: The predecessor is corrupt or was pruned.
        """
        champion = self.champion()
        if champion is None or champion.previous is None:
            raise UsageError("there is no earlier champion to roll back to")
        target = self.get(champion.previous).bundle_id
        with self._lock():
            if self.champion() != champion:
                raise RefitError("the champion was changed by another process; try again")
            earlier = [p for p in self.history() if p.bundle_id == target]
            previous = earlier[-1].previous if earlier else None
            return self._change("rollback", target, previous, by, reason, forced=False)

    def propose(self, bundle_id: str, champion: str, by: str, reason: str) -> Proposal:
        """Propose a bundle for a rollout; replaces an earlier proposal.

        Has no effect if the same bundle is already proposed and its rollout has not ended.

        Args:
            bundle_id: A bundle of this registry.
            champion: Id of the champion that its gate compared it with, "" if there was none.
            by: Author, recorded in the audit trail: a user or a pipeline run.
            reason: Recorded in the audit trail.

        Raises:
            GateRefused: The bundle's verdict is missing or did not pass.
            UsageError: The bundle does not exist, or ``by`` or ``reason`` is empty.
        """
        if refusal := self._refusal(bundle_id):
            raise GateRefused(f"bundle {bundle_id} is not rolled out: {refusal}")
        _check_audit(by, reason)
        with self._lock():
            current = self.candidate()
            if current and current.bundle_id == bundle_id and current.champion == champion:
                return current
            proposal = Proposal(
                bundle_id=bundle_id, champion=champion, at=datetime.now(UTC), by=by, reason=reason
            )
            self._write(CANDIDATE_FILE, proposal.model_dump_json(indent=2) + "\n")
        log_message(f"{bundle_id} is proposed by {by}: {reason}")
        return proposal

    def candidate(self) -> Proposal | None:
        """The proposal whose rollout has not ended; None if there is none."""
        text = self._read(CANDIDATE_FILE)
        proposal = None if text is None else self._parse(Proposal, text, CANDIDATE_FILE)
        if proposal is None or self.decision(proposal.rollout_id):
            return None
        return proposal

    def decide(self, decision: RolloutDecision) -> RolloutDecision:
        """Store the decision of a rollout. If there is one already, it is returned unchanged."""
        with self._lock():
            existing = self.decision(decision.rollout_id)
            if existing is None:
                name = f"{ROLLOUTS_FOLDER}/{decision.rollout_id}.json"
                self._write(name, decision.model_dump_json(indent=2) + "\n")
        return existing or decision

    def decision(self, rollout_id: str) -> RolloutDecision | None:
        """The decision of a rollout; None if it has not ended."""
        name = f"{ROLLOUTS_FOLDER}/{rollout_id}.json"
        text = self._read(name)
        return None if text is None else self._parse(RolloutDecision, text, name)

    def decisions(self) -> tuple[RolloutDecision, ...]:
        """The decisions of all rollouts, oldest first."""
        with self._translated_errors():
            self.fs.invalidate_cache()
            paths = sorted(self.fs.glob(self._at(ROLLOUTS_FOLDER, "*.json")))
        decisions = (self.decision(PurePosixPath(path).stem) for path in paths)
        return tuple(one for one in decisions if one)

    def history(self) -> tuple[Promotion, ...]:
        """All changes of the champion, oldest first."""
        # The champion is read first: a concurrent promotion is then in the history.
        champion = self.champion()
        promotions = self._read_history()
        if champion and all(p.number != champion.number for p in promotions):
            return (*promotions, champion)
        return promotions

    def prune(self, keep: int, needed: Collection[str] = ()) -> tuple[str, ...]:
        """Remove the oldest bundles except champion, candidate and the champion's predecessor.

        In a local folder, remains of killed writers are removed too, once they are a day old.

        Args:
            keep: Number of newest bundles that are not removed.
            needed: Ids of further bundles that are not removed.

        Returns:
            Ids of the removed bundles.
        """
        with self._lock():
            champion = self.champion()
            kept = {*needed, champion.bundle_id, champion.previous} if champion else {*needed}
            if candidate := self.candidate():
                kept |= {candidate.bundle_id}
            ids = self.list()
            removed = tuple(i for i in ids[: max(len(ids) - keep, 0)] if i not in kept)
            for bundle_id in removed:
                # Without its manifest a partially removed bundle is not listed.
                self.fs.rm_file(self._at("bundles", bundle_id, MANIFEST_FILE))
                self.fs.rm(self._at("bundles", bundle_id), recursive=True)
            if self.is_local:
                self._remove_incomplete()
        return removed

    def _remove_incomplete(self) -> None:
        for path in Path(self._at("bundles")).glob("*"):
            incomplete = path.name.startswith(".") or not (path / MANIFEST_FILE).exists()
            if incomplete and time.time() - path.stat().st_mtime > LEFTOVER_SECONDS:
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
        self._write_history(history)  # includes a line that a killed writer did not append
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
        """Why the bundle's verdict does not allow a promotion; "" if it does."""
        bundle = self.get(bundle_id)
        verdict = bundle.read_verdict()
        if verdict is None:
            return "it has no verdict"
        if verdict.passed:
            return bundle.find_unjudged()
        return "; ".join(verdict.reasons) or "its verdict did not pass"

    def _parse[T: Settings](self, kind: type[T], text: str, name: str) -> T:
        try:
            return kind.model_validate_json(text)
        except ValueError as error:
            raise RefitError(f"{self._at(name)} is invalid: {error}") from None

    def _at(self, *parts: str) -> str:
        return "/".join((self.root.rstrip("/"), *parts))

    def _holds(self, bundle_id: str) -> bool:
        with self._translated_errors():
            self.fs.invalidate_cache()
            return bool(self.fs.exists(self._at("bundles", bundle_id, MANIFEST_FILE)))

    def _read(self, name: str) -> str | None:
        with self._translated_errors():
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
    def _translated_errors(self) -> Iterator[None]:
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
        """Allow one writer at a time; in an object store the lock of a killed writer expires."""
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
        raise UsageError("a change of the champion needs a name and a reason for the audit trail")


@contextmanager
def _placed_once(target: Path) -> Iterator[Path]:
    """Write a folder atomically; if another process has written the same one, keep that."""
    try:
        with write_atomically(target) as staging:
            yield staging
    except OSError:
        if not (target / MANIFEST_FILE).exists():
            raise
