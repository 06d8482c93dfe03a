"""The registry: all bundles, the current champion, and the audit trail of promotions.

A local folder and an object store (any fsspec URL) have the same layout::

    bundles/<bundle_id>/...    immutable; bundles that the gate refused are among them
    champion.json              the latest Promotion; a promotion replaces this file
    history.jsonl              all Promotions, oldest first: the audit trail
    candidate.json             the latest Proposal, if bundles go live by a rollout
    rollouts/<id>.json         the RolloutDecision of each finished rollout
    rollouts/<id>.started      exists once a rollout has a canary
    unblocked.jsonl            all Unblocks, oldest first
    quarantines.json           the Quarantines in force, which training leaves out
    coordination.json          names a database, where the store has no conditional writes

champion.json is authoritative. If a writer is killed before it appended to the history, the next
reader or writer takes the missing line from champion.json. Files are changed by compare and set,
see ``refit.shared_files``: of two promotions that expect the same champion exactly one succeeds.
"""

import json
import shutil
import time
import uuid
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Literal

from fsspec.implementations.local import LocalFileSystem

from refit.bundle import MANIFEST_FILE, Bundle, BundleManifest, load_bundle
from refit.errors import GateRefused, RefitError, ServiceUnreachable, UsageError
from refit.files import remove, write_atomically
from refit.model import ModelKind
from refit.progress import log_message
from refit.quarantine import PublishedQuarantines, Quarantine
from refit.remote import open_store
from refit.rollout import Block, Proposal, RolloutDecision, Unblock
from refit.settings import Settings
from refit.shared_files import (
    DatabaseFiles,
    FolderFiles,
    PlainFiles,
    Seen,
    SharedFiles,
    open_shared_files,
    s3_code,
)
from refit.verdict import Verdict

CHAMPION_FILE = "champion.json"
HISTORY_FILE = "history.jsonl"
CANDIDATE_FILE = "candidate.json"
UNBLOCKED_FILE = "unblocked.jsonl"
QUARANTINES_FILE = "quarantines.json"
COORDINATION_FILE = "coordination.json"
ROLLOUTS_FOLDER = "rollouts"
CHANGE_ATTEMPTS = 1000
LEFTOVER_SECONDS = 86_400.0
DEFAULT_CACHE = Path.home() / ".cache" / "refit" / "bundles"

Role = Literal["champion", "previous", "candidate", "blocked", "refused", "superseded", ""]


class Promotion(Settings):
    """One change of the champion.

    Attributes:
        number: Consecutive number, starting at 1.
        action: ``promote`` or ``rollback``.
        bundle_id: The new champion.
        previous: The bundle that a roll back would return to; None if there is none.
        at: Time of the change.
        by, reason: Author and reason.
        forced: Whether a person promoted a bundle that was refused or superseded.
        blocks: The model that a roll back took out of service.
    """

    number: int
    action: Literal["promote", "rollback"]
    bundle_id: str
    previous: str | None
    at: datetime
    by: str
    reason: str
    forced: bool = False
    blocks: Block | None = None


class Coordination(Settings):
    """How writers of a registry agree, where its store has no conditional writes.

    Attributes:
        database: ``postgresql+psycopg://USER@HOST/DATABASE``.
    """

    database: str


class Registry:
    """Bundles in a local folder or at an fsspec URL.

    Args:
        url: A folder, or a URL such as ``s3://bucket/registry``.
        cache: Local folder in which bundles of a remote registry are cached.
    """

    def __init__(self, url: str | Path, cache: Path = DEFAULT_CACHE) -> None:
        self.fs, self.root = open_store(str(url))
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

    def coordinate(self, database: str) -> None:
        """Name the database by which all writers of this registry agree.

        Call it while nothing else writes. The password is read from PGPASSWORD.

        Raises:
            UsageError: It is no PostgreSQL database, holds a password, or the registry is a folder.
            ServiceUnreachable: The database or the store cannot be used.
        """
        if self.is_local:
            raise UsageError(f"{self.root} is a folder, which needs no database")
        plain = PlainFiles(self.fs, self.root)
        with self._translated_errors():
            files = DatabaseFiles(plain, database, self.root)
            if self._read(COORDINATION_FILE) is None:
                files.forget()  # what was current there before somebody did without it
            text = Coordination(database=database).model_dump_json(indent=2) + "\n"
            plain.write(COORDINATION_FILE, text)
        self.__dict__.pop("_files", None)

    def champion(self) -> Promotion | None:
        """The promotion of the current champion; None if nothing was promoted yet.

        Raises:
            RefitError: champion.json is invalid, or it is lost.
            ServiceUnreachable: The store does not answer, or has no such bucket.
        """
        champion = self._latest_promotion()
        if champion is None and (last := self._last_known_champion()):
            raise RefitError(
                f"{self._at(CHAMPION_FILE)} is lost: bundles were promoted here, the last one was "
                f"{last}. Restore the file, or name the champion again: refit bundles promote "
                f"{last} --force --reason REASON"
            )
        return champion

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
            f"no champion in {self.root} yet: train one with refit run continuous_training "
            "--first-model, or promote a bundle with refit bundles promote"
        )

    def starting_champion(self, first_model: bool) -> str:
        """Id of the champion that a training starts from, "" for a first model.

        Args:
            first_model: Whether somebody has said that this is the first model.

        Raises:
            UsageError: There is no champion and it is not said to be the first model, or there is
                one although it is.
        """
        champion = self.champion_id()
        if first_model and champion:
            raise UsageError(
                f"there is a champion in {self.root} already, {champion}: leave out --first-model"
            )
        if not first_model and not champion:
            raise UsageError(
                f"there is no champion in {self.root}: pass --first-model if this is the first, "
                "otherwise check which registry the command reads (--home, --registry, or registry "
                "in the cluster file)"
            )
        return champion

    def promote(
        self,
        bundle_id: str,
        by: str,
        reason: str,
        force: bool = False,
        expected: str | None = None,
    ) -> Promotion:
        """Make a bundle the champion; has no effect if it already is.

        Args:
            bundle_id: A bundle of this registry.
            by: Author, recorded in the audit trail: a user or a pipeline run.
            reason: Recorded in the audit trail.
            force: Promote even a bundle that was refused, superseded or never judged, and even if
                champion.json is lost.
            expected: Id of the champion that it replaces, "" for none: with another champion
                nothing changes. None replaces whichever there is.

        Raises:
            GateRefused: The bundle's verdict is missing or did not pass, it is blocked or was
                superseded, or the champion is not the expected one.
            UsageError: The bundle does not exist, or ``by`` or ``reason`` is empty.
        """
        _check_audit(by, reason)
        forced = self._check_bundle(bundle_id, force, "promoted")

        def change(champion: Promotion | None) -> Promotion | None:
            if champion and champion.bundle_id == bundle_id:
                return None
            current = champion.bundle_id if champion else ""
            if expected is not None and current != expected:
                raise GateRefused(explain_other_champion(expected, current))
            return self._next(champion, "promote", bundle_id, current or None, by, reason, forced)

        promotion = self._change(change, force)
        if not self._holds(bundle_id):
            raise RefitError(
                f"{bundle_id} was removed from the registry while it was promoted: name another "
                "champion with refit bundles promote"
            )
        return promotion

    def rollback(self, by: str, reason: str) -> Promotion:
        """Make the champion's predecessor champion again; each call goes one champion back.

        The model that served is blocked: it cannot be promoted until a person lifts the block.

        Raises:
            UsageError: There is no predecessor, or ``by`` or ``reason`` is empty.
            RefitError: The predecessor is corrupt or was pruned.
        """
        _check_audit(by, reason)
        champion = self.champion()
        if champion is None or champion.previous is None:
            raise UsageError("there is no earlier champion to roll back to")
        target = self.get(champion.previous)
        why = f"{champion.bundle_id} was rolled back by {by}: {reason}"
        block = self.new_block(champion.bundle_id, why, target.manifest)

        def change(current: Promotion | None) -> Promotion:
            if current != champion:
                raise RefitError("the champion was changed by another process; try again")
            earlier = [p for p in self.history() if p.bundle_id == target.bundle_id]
            previous = earlier[-1].previous if earlier else None
            to = target.bundle_id
            return self._next(champion, "rollback", to, previous, by, reason, False, block)

        return self._change(change, force=False)

    def new_block(self, bundle_id: str, why: str, instead: BundleManifest | None = None) -> Block:
        """A block of a bundle's model.

        Args:
            bundle_id: The bundle that is taken out of service.
            why: By whom, and for which reason.
            instead: Manifest of the bundle that serves instead. What both share is not blocked:
                with the same towers only the index is, and with the same index only the bundle.
        """
        block = Block(block_id=uuid.uuid4().hex, bundle_id=bundle_id, why=why)
        try:
            found = self._read_manifest(bundle_id)
        except RefitError:
            return block  # without a manifest the bundle can still be named
        version, index = found.embedding_version, found.index_fingerprint
        if instead is None or instead.embedding_version != version:
            return block.model_copy(update={"embedding_version": version})
        if instead.index_fingerprint == index:
            return block
        changes = {"embedding_version": version, "index_fingerprint": index}
        return block.model_copy(update=changes)

    def blocks(self) -> tuple[Block, ...]:
        """The blocks that nobody has lifted, oldest first."""
        changes: tuple[Promotion | RolloutDecision, ...] = (*self.history(), *self.decisions())
        lines = (self._read(UNBLOCKED_FILE) or "").splitlines()
        lifted = {self._parse(Unblock, line, UNBLOCKED_FILE).block_id for line in lines}
        made = [c for c in changes if c.blocks and c.blocks.block_id not in lifted]
        return tuple(c.blocks for c in sorted(made, key=lambda c: c.at) if c.blocks)

    def unblock(self, bundle_id: str, by: str, reason: str) -> tuple[Block, ...]:
        """Lift the blocks of a bundle's model.

        Raises:
            UsageError: It is not blocked, or ``by`` or ``reason`` is empty.
        """
        _check_audit(by, reason)
        manifest = self._read_manifest(bundle_id)
        lifted = tuple(b for b in self.blocks() if b.bundle_id == bundle_id or b.covers(manifest))
        if not lifted:
            raise UsageError(f"{bundle_id} is not blocked")
        now = datetime.now(UTC)
        lines = "".join(
            Unblock(
                block_id=block.block_id, bundle_id=bundle_id, at=now, by=by, reason=reason
            ).model_dump_json()
            + "\n"
            for block in lifted
        )
        self._update(UNBLOCKED_FILE, lambda text: (text or "") + lines)
        log_message(f"{bundle_id} is no longer blocked (by {by}: {reason})")
        return lifted

    def quarantines(self) -> tuple[Quarantine, ...]:
        """The quarantines in force, as they were last published; none if nobody ever did.

        Raises:
            RefitError: The file is invalid.
            ServiceUnreachable: The store does not answer.
        """
        return self._parse_quarantines(self._read(QUARANTINES_FILE))

    def publish_quarantines(
        self, change: Callable[[tuple[Quarantine, ...]], Collection[Quarantine]]
    ) -> tuple[Quarantine, ...]:
        """Replace the published quarantines by compare and set; returns those in force now.

        Args:
            change: Takes the published ones and returns those that are in force. It is called again
                when another writer came between, and must then read its own source again.
        """
        found: list[tuple[Quarantine, ...]] = []

        def update(text: str | None) -> str:
            new = change(self._parse_quarantines(text))
            found.append(tuple(sorted(new, key=lambda each: (each.start, each.quarantine_id))))
            published = PublishedQuarantines(quarantines=found[-1])
            return _as_json(published) if found[-1] or text is not None else ""

        self._update(QUARANTINES_FILE, update)
        return found[-1]

    def propose(
        self, bundle_id: str, champion: str, by: str, reason: str, force: bool = False
    ) -> Proposal:
        """Propose a bundle for a rollout.

        An earlier proposal that has no canary yet is superseded, which is recorded. Has no effect
        if the same bundle is already proposed and its rollout has not ended.

        Args:
            bundle_id: A bundle of this registry.
            champion: Id of the champion that its gate compared it with, "" if there was none.
            by: Author, recorded in the audit trail: a user or a pipeline run.
            reason: Recorded in the audit trail.
            force: Propose even a bundle that was refused or superseded.

        Raises:
            GateRefused: The bundle's verdict is missing or did not pass, it is blocked, or it was
                superseded.
            UsageError: The bundle does not exist, or ``by`` or ``reason`` is empty.
        """
        forced = self._check_bundle(bundle_id, force, "rolled out")
        _check_audit(by, reason)
        for _ in range(CHANGE_ATTEMPTS):
            seen = self._see(CANDIDATE_FILE)
            current = self._undecided(seen.text)
            if current and current.bundle_id == bundle_id and current.champion == champion:
                return current
            proposal = Proposal(
                bundle_id=bundle_id,
                champion=champion,
                at=datetime.now(UTC),
                by=by,
                reason=reason,
                forced=forced,
            )
            if current and self._read(_started(current)) is None:
                self.decide(_supersede(current, proposal, self._latest_promotion()))
            if self._replace(CANDIDATE_FILE, _as_json(proposal), seen):
                log_message(f"{bundle_id} is proposed by {by}: {reason}")
                return proposal
        raise self._too_busy(CANDIDATE_FILE)

    def candidate(self) -> Proposal | None:
        """The proposal whose rollout has not ended; None if there is none."""
        return self._undecided(self._read(CANDIDATE_FILE))

    def begin(self, proposal: Proposal) -> None:
        """Record that a proposal's rollout has begun; from then on no other one supersedes it."""
        self._replace(_started(proposal), "", Seen(None))

    def decide(self, decision: RolloutDecision) -> RolloutDecision:
        """Store the decision of a rollout. If there is one already, it is returned unchanged."""
        name = f"{ROLLOUTS_FOLDER}/{decision.rollout_id}.json"
        if self._replace(name, _as_json(decision), Seen(None)):
            return decision
        existing = self.decision(decision.rollout_id)
        if existing is None:
            raise self._too_busy(name)
        return existing

    def decision(self, rollout_id: str) -> RolloutDecision | None:
        """The decision of a rollout; None if it has not ended."""
        name = f"{ROLLOUTS_FOLDER}/{rollout_id}.json"
        text = self._read(name)
        return None if text is None else self._parse(RolloutDecision, text, name)

    def decisions(self) -> tuple[RolloutDecision, ...]:
        """The decisions of all rollouts, oldest first."""
        with self._translated_errors():
            paths = sorted(self.fs.glob(self._at(ROLLOUTS_FOLDER, "*.json")))
        decisions = (self.decision(PurePosixPath(path).stem) for path in paths)
        return tuple(one for one in decisions if one)

    def history(self) -> tuple[Promotion, ...]:
        """All changes of the champion, oldest first."""
        # The champion is read first: a concurrent promotion is then in the history.
        return _complete(self._read_history(), self._latest_promotion())

    def roles(self) -> dict[str, Role]:
        """What each bundle is now, oldest bundle first.

        ``previous`` is what a roll back returns to. ``superseded`` is a bundle that a later one
        replaced, as champion or before its rollout began.
        """
        champion, candidate, blocks = self._latest_promotion(), self.candidate(), self.blocks()
        superseded, roles = self._superseded(), {}
        for bundle_id in self.list():
            role: Role = ""
            if champion and bundle_id == champion.bundle_id:
                role = "champion"
            elif champion and bundle_id == champion.previous:
                role = "previous"
            elif candidate and bundle_id == candidate.bundle_id:
                role = "candidate"
            elif blocks and any(b.covers(self._read_manifest(bundle_id)) for b in blocks):
                role = "blocked"
            elif self._was_refused(bundle_id):
                role = "refused"
            elif bundle_id in superseded:
                role = "superseded"
            roles[bundle_id] = role
        return roles

    def kind(self, bundle_id: str) -> ModelKind:
        """Whether a bundle holds a model, or a baseline that is served as itself."""
        return self._read_manifest(bundle_id).kind

    def prune(
        self, keep: int, keep_refused: int | None = None, needed: Collection[str] = ()
    ) -> tuple[str, ...]:
        """Remove the oldest bundles except champion, candidate and the champion's predecessor.

        In a local folder, remains of killed writers are removed too, once they are a day old.

        Args:
            keep: Number of newest bundles that are not removed.
            keep_refused: Number of newest refused bundles that are not removed; None counts them
                like the others.
            needed: Ids of further bundles that are not removed.

        Returns:
            Ids of the removed bundles.
        """
        ids = self.list()
        refused = [] if keep_refused is None else [i for i in ids if self._was_refused(i)]
        others = [i for i in ids if i not in refused]
        old = {*others[: max(len(others) - keep, 0)]}
        old |= {*refused[: max(len(refused) - (keep_refused or 0), 0)]}
        old -= {*needed}
        removed = tuple(i for i in ids if i in old and self._remove_bundle(i))
        if self.is_local:
            self._remove_incomplete()
        return removed

    def _remove_bundle(self, bundle_id: str) -> bool:
        """Remove a bundle unless it is needed; returns whether it was removed.

        Without its manifest a bundle is not listed, and not promoted. Whether it is needed is read
        after that, so that a promotion at the same time either finds it missing or keeps it.
        """
        if bundle_id in self._needed():
            return False
        manifest = self._at("bundles", bundle_id, MANIFEST_FILE)
        with self._translated_errors():
            content = self.fs.cat_file(manifest)
            self.fs.rm_file(manifest)
            if bundle_id in self._needed():
                self.fs.pipe_file(manifest, content)
                return False
            self.fs.rm(self._at("bundles", bundle_id), recursive=True)
        return True

    def _needed(self) -> set[str]:
        champion, candidate = self.champion(), self.candidate()
        needed = {champion.bundle_id, champion.previous or ""} if champion else set()
        return needed | ({candidate.bundle_id} if candidate else set())

    def _remove_incomplete(self) -> None:
        for path in Path(self._at("bundles")).glob("*"):
            incomplete = path.name.startswith(".") or not (path / MANIFEST_FILE).exists()
            if incomplete and time.time() - path.stat().st_mtime > LEFTOVER_SECONDS:
                remove(path)

    def _change(
        self, change: Callable[[Promotion | None], Promotion | None], force: bool
    ) -> Promotion:
        """Replace the champion by compare and set.

        Args:
            change: Returns the promotion that follows the champion, or None for no change.
            force: Whether champion.json may be lost.
        """
        for _ in range(CHANGE_ATTEMPTS):
            seen = self._see(CHAMPION_FILE)
            champion = self._parse_champion(seen.text)
            if champion is None and not force:
                self.champion()  # raises if it is lost
            promotion = change(champion)
            if promotion is None and champion:
                if self._read(CHAMPION_FILE) is None:  # lost, and known to the database
                    self._replace(CHAMPION_FILE, _as_json(champion), seen)
                return champion
            if promotion is None:
                break
            self._append_to_history(champion)  # a line that a killed writer did not append
            if self._replace(CHAMPION_FILE, _as_json(promotion), seen):
                self._append_to_history(promotion)
                log_message(
                    f"champion is now {promotion.bundle_id} "
                    f"({promotion.action} by {promotion.by}: {promotion.reason})"
                )
                return promotion
        raise self._too_busy(CHAMPION_FILE)

    def _next(
        self,
        champion: Promotion | None,
        action: Literal["promote", "rollback"],
        bundle_id: str,
        previous: str | None,
        by: str,
        reason: str,
        forced: bool,
        blocks: Block | None = None,
    ) -> Promotion:
        """The promotion that follows the champion's."""
        history = _complete(self._read_history(), champion)
        return Promotion(
            number=history[-1].number + 1 if history else 1,
            action=action,
            bundle_id=bundle_id,
            previous=previous,
            at=datetime.now(UTC),
            by=by,
            reason=reason,
            forced=forced,
            blocks=blocks,
        )

    def _latest_promotion(self) -> Promotion | None:
        return self._parse_champion(self._read(CHAMPION_FILE))

    def _parse_champion(self, text: str | None) -> Promotion | None:
        return None if text is None else self._parse(Promotion, text, CHAMPION_FILE)

    def _parse_quarantines(self, text: str | None) -> tuple[Quarantine, ...]:
        if text is None:
            return ()
        try:
            return self._parse(PublishedQuarantines, text, QUARANTINES_FILE).quarantines
        except RefitError as error:
            raise RefitError(
                f"{error}\nNothing is trained without it. Restore the file, or remove it and run "
                "refit monitor, which writes it again from the alert store"
            ) from None

    def _last_known_champion(self) -> str:
        """The last bundle that became champion, by all records but champion.json; "" if none."""
        if history := self._read_history():
            return history[-1].bundle_id
        promoted = [d.bundle_id for d in self.decisions() if d.action == "promote"]
        return promoted[-1] if promoted else ""

    def _read_history(self) -> tuple[Promotion, ...]:
        lines = (self._read(HISTORY_FILE) or "").splitlines()
        return tuple(self._parse(Promotion, line, HISTORY_FILE) for line in lines)

    def _append_to_history(self, promotion: Promotion | None) -> None:
        if promotion is None:
            return
        line = promotion.model_dump_json(exclude_defaults=True) + "\n"

        def append(text: str | None) -> str:
            lines = (text or "").splitlines()
            written = (self._parse(Promotion, each, HISTORY_FILE) for each in lines)
            known = any(each.number == promotion.number for each in written)
            return (text or "") + ("" if known else line)

        self._update(HISTORY_FILE, append)

    def _undecided(self, text: str | None) -> Proposal | None:
        """The proposal of candidate.json if its rollout has not ended."""
        proposal = None if text is None else self._parse(Proposal, text, CANDIDATE_FILE)
        if proposal is None or self.decision(proposal.rollout_id):
            return None
        return proposal

    def _check_bundle(self, bundle_id: str, force: bool, what: str) -> bool:
        """Check that a bundle may serve; returns whether it may only because it is forced.

        Raises:
            GateRefused: It may not.
        """
        bundle = self.get(bundle_id)
        for block in self.blocks():
            if block.covers(bundle.manifest):
                raise GateRefused(
                    f"bundle {bundle_id} is not {what}: its model is blocked, {block.why}. To lift "
                    f"the block: refit bundles unblock {bundle_id} --reason REASON"
                )
        refusal = _refusal(bundle)
        if not refusal and bundle_id != self._latest_id():
            by = self._superseded().get(bundle_id)
            refusal = f"it was superseded by {by}" if by else ""
        if refusal and not force:
            raise GateRefused(
                f"bundle {bundle_id} is not {what}: {refusal}. "
                f"To have it {what} anyway, force it and give a reason."
            )
        return bool(refusal)

    def _latest_id(self) -> str:
        """Id of the champion by champion.json alone; "" if that is missing."""
        champion = self._latest_promotion()
        return champion.bundle_id if champion else ""

    def _superseded(self) -> dict[str, str]:
        """Bundles that a later one replaced, and which one."""
        changes: tuple[Promotion | RolloutDecision, ...] = (*self.history(), *self.decisions())
        serving, superseded = "", {}
        for change in sorted(changes, key=lambda change: change.at):
            if isinstance(change, RolloutDecision):
                if change.action == "supersede":
                    superseded[change.bundle_id] = change.superseded_by
                continue
            if change.action == "promote" and serving and serving != change.bundle_id:
                superseded[serving] = change.bundle_id
            serving = change.bundle_id
            superseded.pop(serving, None)
        return superseded

    def _was_refused(self, bundle_id: str) -> bool:
        text = self._read(f"bundles/{bundle_id}/evaluation/verdict.json")
        return text is not None and not self._parse(Verdict, text, bundle_id).passed

    def _read_manifest(self, bundle_id: str) -> BundleManifest:
        text = self._read(f"bundles/{bundle_id}/{MANIFEST_FILE}")
        if text is None:
            raise UsageError(f"no bundle {bundle_id!r} in {self.root}")
        return self._parse(BundleManifest, text, f"bundles/{bundle_id}/{MANIFEST_FILE}")

    def _parse[T: Settings](self, kind: type[T], text: str, name: str) -> T:
        try:
            return kind.model_validate_json(text)
        except ValueError as error:
            raise RefitError(f"{self._at(name)} is invalid: {error}") from None

    def _at(self, *parts: str) -> str:
        return "/".join((self.root.rstrip("/"), *parts))

    def _holds(self, bundle_id: str) -> bool:
        with self._translated_errors():
            return bool(self.fs.exists(self._at("bundles", bundle_id, MANIFEST_FILE)))

    def _read(self, name: str) -> str | None:
        with self._translated_errors():
            try:
                return bytes(self.fs.cat_file(self._at(name))).decode()
            except FileNotFoundError as error:
                if s3_code(error) == "NoSuchBucket":
                    raise ServiceUnreachable(f"there is no bucket for {self.root}") from None
                return None

    @cached_property
    def _files(self) -> SharedFiles:
        """How this registry's files are changed."""
        if self.is_local:
            return FolderFiles(Path(self.root))
        plain = PlainFiles(self.fs, self.root.rstrip("/"))
        if (text := self._read(COORDINATION_FILE)) is not None:
            coordination = self._parse(Coordination, text, COORDINATION_FILE)
            return DatabaseFiles(plain, coordination.database, self.root)
        if (files := open_shared_files(self.fs, self.root.rstrip("/"))) is not None:
            return files
        raise UsageError(
            f"the store of {self.root} has no conditional writes that Refit knows: name a "
            "PostgreSQL database for this registry: refit bundles coordinate DATABASE"
        )

    def _see(self, name: str) -> Seen:
        with self._translated_errors():
            return self._files.read(name)

    def _replace(self, name: str, text: str, seen: Seen) -> bool:
        with self._translated_errors():
            return self._files.replace(name, text, seen)

    def _update(self, name: str, change: Callable[[str | None], str]) -> None:
        """Change a file by compare and set, until no other writer comes between.

        No file is made for an empty text.
        """
        for _ in range(CHANGE_ATTEMPTS):
            seen = self._see(name)
            text = change(seen.text)
            if text == (seen.text or "") or self._replace(name, text, seen):
                return
        raise self._too_busy(name)

    def _too_busy(self, name: str) -> ServiceUnreachable:
        return ServiceUnreachable(f"{self._at(name)} is changed by others all the time; try again")

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


def explain_other_champion(expected: str, current: str) -> str:
    """Why a bundle that was compared with one champion does not replace another."""
    return (
        f"the evaluation compared with {expected or 'no champion'}, but the champion is now "
        f"{current or 'none'}; evaluate again"
    )


def _complete(history: tuple[Promotion, ...], champion: Promotion | None) -> tuple[Promotion, ...]:
    """The history with the champion's line, which a killed writer may not have appended."""
    if champion and all(p.number != champion.number for p in history):
        return (*history, champion)
    return history


def _refusal(bundle: Bundle) -> str:
    """Why a bundle's verdict does not allow a promotion; "" if it does."""
    verdict = bundle.read_verdict()
    if verdict is None:
        return "it has no verdict"
    if verdict.passed:
        return bundle.find_unjudged()
    return "; ".join(verdict.reasons) or "its verdict did not pass"


def _started(proposal: Proposal) -> str:
    return f"{ROLLOUTS_FOLDER}/{proposal.rollout_id}.started"


def _supersede(earlier: Proposal, later: Proposal, champion: Promotion | None) -> RolloutDecision:
    reason = f"superseded by {later.bundle_id}, which {later.by} proposed: {later.reason}"
    return RolloutDecision(
        rollout_id=earlier.rollout_id,
        bundle_id=earlier.bundle_id,
        champion=earlier.champion,
        action="supersede",
        verdict=Verdict(passed=False, reasons=(reason,), measurements={}, checks=()),
        last_promotion=champion.number if champion else 0,
        started_at=later.at,
        at=later.at,
        by=later.by,
        superseded_by=later.bundle_id,
    )


def _as_json(record: Settings) -> str:
    """A record as written: without defaults, so that older readers know every name."""
    return record.model_dump_json(indent=2, exclude_defaults=True) + "\n"


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
