"""The owner of the DuckDB file: records, their states, claims and events; what it acknowledged is on disk."""

from __future__ import annotations

import fcntl
import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeAlias, TypeVar, cast
from uuid import uuid4

import duckdb

from trimtab.platform import liveness
from trimtab.platform.errors import Conflict, InvalidInput
from trimtab.platform.records import (
    RECORDS,
    Action,
    ActionPlan,
    Audit,
    CandidateRecord,
    Claimable,
    EfficacyIndicator,
    Event,
    Explanation,
    Feed,
    Goal,
    Record,
    ScoringEngine,
    Service,
    Strategy,
)
from trimtab.platform.states import PlanState
from trimtab.platform.store import catalogue, copies, purging, query, restoring, views
from trimtab.platform.store.kept import Kept
from trimtab.platform.store.schema import prepare
from trimtab.platform.store.transaction import Move, Outcomes, Transaction, fence

log = logging.getLogger(__name__)

R = TypeVar("R", bound=Record)
C = TypeVar("C", bound=Claimable)
Rows: TypeAlias = list[R]  # inside the class `list` is the method
Changes: TypeAlias = list[liveness.Change]

SETTINGS: dict[str, str | bool | int | float | list[str]] = {
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "threads": 1,  # rows are few and lookups short: a second thread costs more than it brings
}
GUARDED = frozenset(
    {"id", "uuid", "created_at", "updated_at", "deleted_at", "deleted", "state", "owner", "lease_until", "epoch"}
)  # written by the store alone


def utc_now() -> datetime:
    """The wall clock."""
    return datetime.now(UTC)


class Older(NamedTuple):
    """What a file was before it was carried forward: its schema version, and the copy of it."""

    version: int
    copy: Path


class Store:
    """All records, in one DuckDB file that one process owns; None keeps everything in memory.

    Synchronous, and safe to call from several threads (one at a time gets through). Everything that changes something
    is one transaction, committed to disk when the method returns. Kinds are record classes; all lookups are of live
    rows unless `deleted` is set. A file of an older version is carried forward; a copy of it is kept beside it first.

    Raises:
        Conflict: somebody else has the file open. InvalidInput: the file is not this program's, or from a newer one.
    """

    def __init__(self, path: Path | None, now: Callable[[], datetime] = utc_now) -> None:
        self._now, self._lock = now, threading.RLock()
        self._kept = Kept()
        self._owned = _own(path) if path else None
        try:
            self._con: duckdb.DuckDBPyConnection | None = _connect(path)
            self.older: Older | None = None
            self._version = prepare(
                self._con, str(path or "the store"), before=None if path is None else partial(self._keep_copy, path)
            )
            highest = "coalesce(max(id), 0)"
            self._last = {
                name: (self._con.execute(query.aggregate(kind, highest)).fetchone() or (0,))[0]
                for name, kind in RECORDS.items()
            }
        except BaseException:
            self._free()
            raise

    # -- reading ---------------------------------------------------------------------------------

    def get(self, kind: type[R], ident: int | str, *, deleted: bool = False) -> R:
        """One record by id (or text like one), uuid or name (in any case); `deleted` looks at deleted rows too.

        Raises:
            NotFound: there is none.
        """
        with self._reading() as tx:
            return tx.get(kind, ident, deleted=deleted)

    def find(self, kind: type[R], ident: int | str, *, deleted: bool = False) -> R | None:
        """Like `get`, but None when there is none."""
        with self._reading() as tx:
            return tx.find(kind, ident, deleted=deleted)

    def list(
        self,
        kind: type[R],
        where: Mapping[str, Any] | None = None,
        *,
        limit: int | None = None,
        marker: str | None = None,
        sort_key: str = "id",
        sort_dir: str = "asc",
        deleted: bool = False,
    ) -> Rows[R]:
        """Records in the order (sort_key, id), from behind the one whose uuid is `marker` (of a service: its id).

        `where` maps columns to a value, None, or a collection of which any one matches. Nulls sort as the smallest.

        Raises:
            InvalidInput: unknown column, sort key or direction, or a limit below one. NotFound: unknown marker.
        """
        with self._reading() as tx:
            paging = {"limit": limit, "marker": marker, "sort_key": sort_key, "sort_dir": sort_dir, "deleted": deleted}
            return tx.rows(kind, where or {}, **cast("dict[str, Any]", paging))

    def view(
        self,
        kind: type[R],
        where: Mapping[str, Any] | None = None,
        *,
        called: Mapping[str, str] | None = None,
        limit: int | None = None,
        marker: str | None = None,
        sort_key: str = "id",
        sort_dir: str = "asc",
        deleted: bool = False,
    ) -> views.View[R]:
        """Like `list`, with what the rows point at.

        `called` narrows it: `{"goal_id": "dummy"}` to those whose goal, deleted or not, has this uuid or name.
        """
        paging = {"limit": limit, "marker": marker, "sort_key": sort_key, "sort_dir": sort_dir, "deleted": deleted}
        with self._reading() as tx:
            return views.view(tx, kind, where or {}, called or {}, paging)

    def view_one(self, kind: type[R], ident: int | str, *, deleted: bool = False) -> views.View[R]:
        """Like `get`, with what the row points at."""
        with self._reading() as tx:
            row = tx.get(kind, ident, deleted=deleted)
            return views.View([row], views.related(tx, kind, [row], deleted=deleted))

    def related(self, row: Record, *, deleted: bool = False) -> views.Related:
        """What a row points at."""
        with self._reading() as tx:
            return views.related(tx, type(row), [row], deleted=deleted)

    def count(self, kind: type[Record], where: Mapping[str, Any] | None = None) -> int:
        """How many live records match."""
        with self._reading() as tx:
            return tx.count(kind, where or {})

    def claimable(self, kind: type[C], states: Sequence[str]) -> Rows[C]:
        """Records in these states without a valid lease, oldest first."""
        with self._reading() as tx:
            return tx.claimable(kind, states)

    def runnable_audits(self, within_s: float = 0.0, since: datetime | None = None) -> Rows[Audit]:
        """Audits without a valid lease that are PENDING or ONGOING, or whose webhook was called since they ended.

        Of those that only wait for their next run: where it comes within so many seconds, where their time is over, and
        what was changed `since` a moment.
        """
        with self._reading() as tx:
            return tx.runnable(timedelta(seconds=within_s), since)

    def events(self, after_id: int = 0, limit: int = 1000, record_uuid: str | None = None) -> Rows[Event]:
        """What happened after the event with this id, oldest first; of one record if `record_uuid` is given."""
        with self._reading() as tx:
            return tx.events(after_id, limit, record_uuid)

    def newest_event(self) -> int:
        """The id of the newest event; 0 where nothing has happened yet."""
        with self._reading() as tx:
            return tx.newest_event()

    def feed(self, name: str) -> int:
        """The last event a reader is done with; one that is new begins with what happens from now on."""
        with self._transaction() as tx:
            found = tx.find(Feed, name)
            if found is None:
                (found,) = tx.insert([Feed(uuid=str(uuid4()), name=name, position=tx.newest_event())])
            return found.position

    def feed_to(self, name: str, position: int) -> None:
        """A reader is done with all events up to this one."""
        with self._transaction() as tx:
            tx.change(tx.get(Feed, name), {"position": position})

    # -- writing ---------------------------------------------------------------------------------

    def create(self, record: R, *, key: str | None = None) -> R:
        """Store a new record and return it with its id and created_at.

        `key` makes it safe to ask again: the same key returns the record made first, as it is now.

        Raises:
            Conflict: its name (in any case) or uuid is taken. InvalidInput: a value does not fit.
        """
        with self._transaction() as tx:
            made = tx.made_with(key) if key is not None else None
            if made is not None:
                kind, uuid = made
                if kind != record.kind:
                    raise Conflict(f"Idempotency key {key} belongs to {kind} {uuid}: use a new key for {record.kind}")
                return tx.get(type(record), uuid, deleted=True)
            (stored,) = tx.insert([record])
            if key is not None:
                tx.remember(key, stored)
            return stored

    def create_many(self, records: Sequence[R]) -> Rows[R]:
        """Store many records at once, all or none; in the same order."""
        with self._transaction() as tx:
            return tx.insert(records)

    def update(
        self,
        kind: type[R],
        uuid: str,
        changes: Mapping[str, Any],
        *,
        epoch: int | None = None,
        state: str | None = None,
    ) -> R:
        """Change fields of a record that the store does not guard (states change by `transition`).

        `state`: only as long as it is in this state.

        Raises:
            InvalidInput: no such field, or a guarded one. Conflict: the epoch or the state has moved on, or the new
                name is taken.
        """
        with self._transaction() as tx:
            record = tx.live(kind, uuid)
            _fence(tx, record, epoch)
            now = getattr(record, "state", None)
            if state is not None and now != state:
                raise Conflict(f"{kind.kind} {uuid} is {now}, no longer {state}")
            return tx.edit(record, _allowed(kind, changes))

    def note(self, kind: type[Record], uuid: str, event: str, message: str | None = None) -> None:
        """Write an event of a record that changes nothing in it."""
        with self._transaction() as tx:
            tx.note(tx.live(kind, uuid), event, message)

    def transition(
        self,
        kind: type[R],
        uuid: str,
        event: str,
        changes: Mapping[str, Any] | None = None,
        *,
        message: str | None = None,
        epoch: int | None = None,
    ) -> R:
        """Let an event happen to an audit, plan or action, as its state machine says; writes the event's row too.

        `message` becomes its status_message. `epoch` is the claim's number; for an action that of its plan.

        Raises:
            IllegalTransition: no such edge. Conflict: the epoch has moved on. InvalidInput: a change is not allowed.
        """
        with self._transaction() as tx:
            record = tx.live(kind, uuid)
            _fence(tx, record, epoch)
            return tx.move(record, event, _allowed(kind, changes or {}), message)

    def transitions(self, wanted: Sequence[Move]) -> Outcomes:
        """Many transitions in one transaction: for each the record afterwards, or the error `transition` would raise.

        One that fails does not keep the others from happening.
        """
        with self._transaction() as tx:
            return tx.move_many([move._replace(changes=_allowed(move.kind, move.changes)) for move in wanted])

    def transition_all(
        self,
        kind: type[Record],
        where: Mapping[str, Any],
        event: str,
        changes: Mapping[str, Any] | None = None,
        message: str | None = None,
        *,
        epoch: int | None = None,
    ) -> int:
        """Let an event happen to every record that matches and whose state allows it; returns how many.

        `epoch`, for the actions of one plan (`where` names its action_plan_id), is that of the plan's claim.

        Raises:
            InvalidInput: the event is "delete": delete records one by one, plans take others along.
        """
        if event == "delete":
            raise InvalidInput("Records are deleted one by one: use delete")
        with self._transaction() as tx:
            if epoch is not None:
                fence(tx.get(ActionPlan, where["action_plan_id"]), epoch)
            return tx.move_all(kind, where, event, _allowed(kind, changes or {}), message)

    def delete(self, kind: type[R], uuid: str) -> R:
        """Soft delete a record (a plan with its actions and indicators); its name is free again.

        Raises:
            NotFound: no such live record. IllegalTransition: not in its state.
        """
        with self._transaction() as tx:
            return tx.delete(tx.live(kind, uuid))

    # -- claims ----------------------------------------------------------------------------------

    def claim(self, kind: type[C], uuid: str, owner: str, lease_s: float) -> C:
        """Take a record that is free, expired or already one's own; a new epoch fences earlier owners off.

        Raises:
            Conflict: somebody else holds a valid lease.
        """
        with self._transaction() as tx:
            record = tx.live(kind, uuid)
            free = record.owner is None or record.lease_until is None or record.lease_until <= tx.now
            if not free and record.owner != owner:
                raise Conflict(f"The {kind.kind} {uuid} belongs to {record.owner} until {record.lease_until}")
            until = tx.now + timedelta(seconds=lease_s)
            return tx.change(record, {"owner": owner, "lease_until": until, "epoch": record.epoch + 1})

    def renew(self, kind: type[C], uuid: str, owner: str, epoch: int, lease_s: float) -> C:
        """Extend one's lease; also an expired one, if nobody else has claimed the record since.

        Raises:
            Conflict: it belongs to somebody else by now.
        """
        with self._transaction() as tx:
            record = _held(tx.live(kind, uuid), owner, epoch)
            return tx.change(record, {"lease_until": tx.now + timedelta(seconds=lease_s)})

    def release(self, kind: type[C], uuid: str, owner: str, epoch: int) -> C:
        """Give a record back. Its epoch stays, so the next claim gets a new one.

        Raises:
            Conflict: it belongs to somebody else by now.
        """
        with self._transaction() as tx:
            record = _held(tx.live(kind, uuid), owner, epoch)
            return tx.change(record, {"owner": None, "lease_until": None})

    # -- services --------------------------------------------------------------------------------

    def beat(self, name: str, host: str) -> Service:
        """A sign of life of a service, whose row is made at the first one."""
        with self._transaction() as tx:
            return _beat(tx, name, host)

    def roll_call(self, name: str, host: str, down_after_s: float) -> Changes:
        """A sign of life of a service; its leader also tells who of its name is ACTIVE or FAILED otherwise than before.

        All of a name look at each other, and only the leader tells, as events of the services' rows; so everybody hears
        of a change once. A service that was never told about counts as ACTIVE. Returns what was told.
        """
        with self._transaction() as tx:
            _beat(tx, name, host)
            services = tx.rows(Service, {"name": name})
            states = liveness.statuses(services, tx.now, timedelta(seconds=down_after_s))
            if liveness.leader(services, states) != host:
                return []
            found = liveness.changes(services, tx.last_told([service.uuid for service in services]), states)
            for change in found:
                tx.note(change.service, liveness.STATUS, None, change.old, change.new)
            return found

    # -- growing old -----------------------------------------------------------------------------

    def supersede_plans(self, hours: float) -> int:
        """RECOMMENDED plans that nobody started for so long become SUPERSEDED; returns how many."""
        with self._transaction() as tx:
            before = tx.now - timedelta(hours=hours)
            message = f"Nobody started it within {hours:g} hours"
            return tx.move_older(ActionPlan, PlanState.RECOMMENDED, before, "supersede", message)

    def tidy(self, keep_days: float) -> int:
        """Remove events and idempotency keys older than this; returns how many."""
        with self._transaction() as tx:
            before = tx.now - timedelta(days=keep_days)
            return tx.erase_events(before=before) + tx.forget_keys(before)

    def purge(
        self,
        *,
        age_days: float | None = None,
        most: int | None = None,
        goal: str | None = None,
        orphans: bool = True,
        dry_run: bool = False,
    ) -> purging.Purged:
        """Remove soft-deleted rows for good; see `purging.purge`.

        Raises:
            NotFound: there is no such goal. InvalidInput: the goal is not deleted, or a number is negative.
        """
        with self._transaction() as tx:
            return purging.purge(tx, age_days=age_days, most=most, goal=goal, orphans=orphans, dry_run=dry_run)

    # -- whole stories ---------------------------------------------------------------------------

    def save_outcome(
        self,
        audit_uuid: str,
        *,
        event: str | None,
        epoch: int | None,
        status_message: str | None = None,
        audit_changes: Mapping[str, Any] | None = None,
        candidates: Sequence[CandidateRecord] = (),
        plan: ActionPlan | None = None,
        actions: Sequence[Action] = (),
        indicators: Sequence[EfficacyIndicator] = (),
        explanations: Sequence[Explanation] = (),
        launch: bool = False,
        replaces: bool = False,
        note: str | None = None,
    ) -> ActionPlan | None:
        """Store everything one run of an audit brought, all or nothing; returns the stored plan.

        The ids of audit and plan are filled in here. Of an audit that has run before, candidates are numbered behind
        those of earlier runs, of which only those stay that a plan was made from.

        Args:
            audit_uuid: the audit.
            event: "succeed", "ran", "fail" or None (the state stays).
            epoch: of the claim.
            status_message: of the audit.
            audit_changes: other fields of the audit.
            candidates: what was weighed.
            plan: what is recommended.
            actions: of the plan.
            indicators: of the plan.
            explanations: of the plan.
            launch: start the RECOMMENDED plan at once.
            replaces: the audit's earlier plans that nobody started are CANCELLED; their actions stay as they are.
            note: an event of the audit to be told before the one that ends it.

        Raises:
            IllegalTransition: the audit has left the state in which this may happen to it (somebody cancelled it).
            Conflict: the epoch has moved on. InvalidInput: actions or indicators without a plan.
        """
        if plan is None and (actions or indicators or explanations):
            raise InvalidInput("Actions and indicators belong to a plan: give the plan too")
        with self._transaction() as tx:
            audit = tx.live(Audit, audit_uuid)
            _fence(tx, audit, epoch)
            if replaces:
                earlier = {"audit_id": audit.id, "state": PlanState.RECOMMENDED}
                tx.move_all(ActionPlan, earlier, "cancel", {}, "A newer run of its audit made another plan")
            first = tx.forget_candidates(audit)
            tx.insert(
                [replace(one, audit_id=audit.id, number=one.number + first) for one in candidates], read_back=False
            )
            stored = None
            if plan is not None:
                number = plan.candidate + first if plan.candidate >= 0 else plan.candidate
                (stored,) = tx.insert([replace(plan, audit_id=audit.id, candidate=number)])
                tx.insert([replace(action, action_plan_id=stored.id) for action in actions], read_back=False)
                tx.insert([replace(indicator, action_plan_id=stored.id) for indicator in indicators], read_back=False)
                tx.insert([replace(one, action_plan_id=stored.id) for one in explanations], read_back=False)
            if note is not None:
                tx.note(audit, note, None)
            changes = _allowed(Audit, audit_changes or {})
            if event is not None:
                tx.move(audit, event, changes, status_message)
            elif changes or status_message is not None:
                tx.edit(audit, {**changes, **({} if status_message is None else {"status_message": status_message})})
            return tx.move(stored, "launch", {}, None) if stored is not None and launch else stored

    def save_plan(
        self,
        audit_uuid: str,
        plan: ActionPlan,
        actions: Sequence[Action],
        indicators: Sequence[EfficacyIndicator] = (),
        explanations: Sequence[Explanation] = (),
        *,
        supersedes: str | None = None,
    ) -> ActionPlan:
        """Store another plan of an audit, all or nothing; returns it as stored.

        Args:
            audit_uuid: the audit.
            plan: its `audit_id` is filled in here.
            actions: of the plan.
            indicators: of the plan.
            explanations: of the plan.
            supersedes: given, the audit's plans that nobody started become SUPERSEDED, with this as the reason.
        """
        with self._transaction() as tx:
            audit = tx.get(Audit, audit_uuid, deleted=True)
            if supersedes is not None:
                earlier = {"audit_id": audit.id, "state": PlanState.RECOMMENDED}
                tx.move_all(ActionPlan, earlier, "supersede", {}, supersedes)
            (stored,) = tx.insert([replace(plan, audit_id=audit.id)])
            tx.insert([replace(action, action_plan_id=stored.id) for action in actions], read_back=False)
            tx.insert([replace(indicator, action_plan_id=stored.id) for indicator in indicators], read_back=False)
            tx.insert([replace(one, action_plan_id=stored.id) for one in explanations], read_back=False)
            return stored

    def sync_catalogue(
        self,
        goals: Sequence[Goal],
        strategies: Sequence[tuple[Strategy, str]],
        action_descriptions: Mapping[str, str],
        scoring_engines: Sequence[ScoringEngine] | None = None,
    ) -> catalogue.Synced:
        """Make the stored catalogue equal to the plug-ins; strategies come with the name of their goal.

        Raises:
            InvalidInput: a strategy's goal is missing, or a name is there twice.
        """
        with self._transaction() as tx:
            return catalogue.sync(tx, goals, strategies, action_descriptions, scoring_engines)

    def restore(self, heritage: restoring.Heritage) -> restoring.Restored:
        """Take over what another store had: all of it or nothing; what is here already is left alone."""
        with self._transaction() as tx:
            return restoring.restore(tx, heritage)

    # -- the file --------------------------------------------------------------------------------

    def checkpoint(self) -> None:
        """Fold the log into the file now (DuckDB does it by itself every 16 MiB, and at the end)."""
        with self._lock:
            self._open().execute("CHECKPOINT")

    def version(self) -> int:
        """The file's schema version."""
        return self._version

    def backup(self, target: Path) -> None:
        """Write everything into a new file, which is a store like this one; others wait meanwhile.

        Raises:
            Conflict: there is such a file already. InvalidInput: it cannot be written there.
        """
        with self._lock:
            copies.copy_database(self._open(), target)

    def _keep_copy(self, path: Path, version: int) -> None:
        self.older = Older(version, copies.copy_name(path, version))
        copies.copy_database(self._open(), self.older.copy)
        log.warning("%s had schema version %d; it is carried forward, %s is as it was", path, *self.older)

    def close(self) -> None:
        """Close the file; every later call raises Conflict. Closing twice is fine."""
        with self._lock:
            self._free()

    def _free(self) -> None:
        con, self._con = getattr(self, "_con", None), None
        if con is not None:
            con.close()
        if self._owned is not None:
            self._owned.close()
            self._owned = None

    def _open(self) -> duckdb.DuckDBPyConnection:
        if self._con is None:
            raise Conflict("The store is closed: open a new one")
        return self._con

    @contextmanager
    def _reading(self) -> Iterator[Transaction]:
        """Like `_transaction`, where nothing is written: nobody else writes meanwhile, so none is begun."""
        with self._lock:
            yield Transaction(self._open(), self._now(), self._next_ids, self._kept)

    @contextmanager
    def _transaction(self) -> Iterator[Transaction]:
        with self._lock:
            con = self._open()
            con.execute("BEGIN TRANSACTION")
            try:
                yield Transaction(con, self._now(), self._next_ids, self._kept)
            except BaseException:
                con.execute("ROLLBACK")
                raise
            con.execute("COMMIT")

    def _next_ids(self, kind: str, count: int) -> int:
        first = self._last[kind] + 1
        self._last[kind] += count
        return int(first)


def _connect(path: Path | None) -> duckdb.DuckDBPyConnection:
    try:
        return duckdb.connect(str(path) if path else ":memory:", config=SETTINGS)
    except duckdb.Error as error:
        raise copies.why_closed(path or Path("the store"), error) from error


def _own(path: Path) -> IO[str]:
    """Lock the file for this Store; DuckDB alone would let a second one in the same process in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = path.with_name(f"{path.name}.lock").open("a+")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        owner = lock.read().strip() or "unknown"
        lock.close()
        raise Conflict(f"{path} is owned by process {owner}: stop it, or ask it instead of opening the file") from None
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
    return lock


def _beat(tx: Transaction, name: str, host: str) -> Service:
    same = tx.rows(Service, {"name": name, "host": host})
    if same:
        return tx.change(same[0], {"last_seen_up": tx.now})
    (made,) = tx.insert([Service(uuid=str(uuid4()), name=name, host=host, last_seen_up=tx.now)])
    return made


def _allowed(kind: type[Record], changes: Mapping[str, Any]) -> Mapping[str, Any]:
    guarded = sorted(GUARDED & changes.keys())
    if guarded:
        raise InvalidInput(f"{kind.__name__}.{guarded[0]} is kept by the store: it cannot be changed directly")
    if kind is Event:
        raise InvalidInput("Events are history: they cannot be changed")
    return changes


def _fence(tx: Transaction, record: Record, epoch: int | None) -> None:
    if epoch is not None:
        fence(tx.get(ActionPlan, record.action_plan_id) if isinstance(record, Action) else record, epoch)


def _held(record: C, owner: str, epoch: int) -> C:
    if record.owner != owner or record.epoch != epoch:
        raise Conflict(
            f"The {record.kind} {record.uuid} belongs to {record.owner or 'nobody'} at epoch {record.epoch}, "
            f"not to {owner} at {epoch}"
        )
    return record
