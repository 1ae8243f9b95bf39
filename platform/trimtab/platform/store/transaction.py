"""Reading and writing inside one open transaction: lookups, inserts, changes of state with events, soft deletes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, NamedTuple, TypeAlias, TypeVar, cast
from uuid import uuid4

from duckdb import DuckDBPyConnection

from trimtab.platform.errors import Conflict, InvalidInput, NotFound, TrimtabError
from trimtab.platform.records import (
    Action,
    ActionDescription,
    ActionPlan,
    Audit,
    AuditTemplate,
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
    WhatIf,
)
from trimtab.platform.schedule import after_pause
from trimtab.platform.states import MACHINES, Machine, PlanState
from trimtab.platform.store import query
from trimtab.platform.store.kept import KINDS, LONGEST_PAGE, Kept
from trimtab.platform.store.rows import (
    CANONICAL,
    canonical,
    columns,
    from_cell,
    from_row,
    is_text,
    to_arrow,
    to_cell,
    to_row,
)

R = TypeVar("R", bound=Record)
Rows: TypeAlias = list[R]
Outcomes: TypeAlias = list[Record | TrimtabError]
NextIds = Callable[[str, int], int]

BULK_FROM = 8  # so many rows go in through Arrow instead of one statement each
UNIQUE: Mapping[type[Record], tuple[str, ...]] = {
    Goal: ("name",),
    Strategy: ("name",),
    AuditTemplate: ("name",),
    Audit: ("name",),
    ScoringEngine: ("name",),
    Service: ("name", "host"),
    ActionDescription: ("action_type",),
    Feed: ("name",),
}
TOLD: tuple[type[Record], ...] = (Audit, ActionPlan, Action)  # creations and changes of these are events too
CALLED: Mapping[type[Record], str] = {CandidateRecord: "Candidate", WhatIf: "What-if"}  # all others like their class


class Transaction:
    """One open transaction at one moment. What it returns is what is stored."""

    def __init__(self, con: DuckDBPyConnection, now: datetime, next_ids: NextIds, kept: Kept) -> None:
        self._con, self.now, self._next_ids, self._kept = con, now, next_ids, kept
        self._wrote: set[type[Record]] = set()

    # -- reading ---------------------------------------------------------------------------------

    def find(self, kind: type[R], ident: int | str, *, deleted: bool = False) -> R | None:
        """One row by id (or text like one), uuid or name, in this order; names match in any case, exact ones first."""
        text = str(ident)
        number = _integer(ident)
        if number is not None:
            return self._by_id(kind, number, deleted=deleted)
        if not is_text(text):
            return None
        found = self._by_uuid(kind, canonical(text), deleted=deleted)
        if found is None and kind in UNIQUE:
            (name, *_) = UNIQUE[kind]
            rest = f'WHERE lower("{name}") = lower(?) ORDER BY deleted = 0 DESC, "{name}" = ? DESC, id DESC LIMIT 1'
            found = self._first(kind, rest, [text, text], deleted)
        return found

    def get(self, kind: type[R], ident: int | str, *, deleted: bool = False) -> R:
        """Like `find`, or NotFound."""
        found = self.find(kind, ident, deleted=deleted)
        if found is None:
            raise missing(kind, ident)
        return found

    def live(self, kind: type[R], uuid: str) -> R:
        """The live row with this uuid, or NotFound."""
        found = self._by_uuid(kind, canonical(uuid), deleted=False)
        if found is None:
            raise missing(kind, uuid)
        return found

    def rows(
        self,
        kind: type[R],
        where: Mapping[str, Any],
        *,
        limit: int | None = None,
        marker: str | None = None,
        sort_key: str = "id",
        sort_dir: str = "asc",
        deleted: bool = False,
    ) -> Rows[R]:
        """One page of a list."""
        order, size = query.order(kind, sort_key, sort_dir), query.page_size(limit)
        condition, parameters = query.conditions(kind, where, deleted=deleted)
        if marker is not None:
            number = _integer(marker) if kind is Service else None
            by, value = ("uuid", canonical(marker)) if number is None else ("id", number)
            # A row deleted since the last page still marks its place.
            if kind in KINDS:
                row = self._by_uuid(kind, str(value), deleted=True)
                cell = None if row is None else to_cell(kind, columns(kind)[sort_key], getattr(row, sort_key))
                seen = None if row is None else (cell, row.id)
            else:
                seen = self._con.execute(query.select(kind, f"WHERE {by} = ?", (sort_key, "id")), [value]).fetchone()
            if seen is None:
                raise missing(kind, marker)
            behind = query.after(sort_key, sort_dir, *seen)
            condition, parameters = f"{condition} AND {behind.sql}", parameters + behind.parameters
        rest = f"WHERE {condition} {order} {size}"
        if kind not in KINDS:
            return self._select(kind, rest, parameters)
        fresh = kind not in self._wrote
        ids = self._kept.page(kind, f"{rest} {parameters}", lambda: self._ids(kind, rest, parameters), keep=fresh)
        return self._by_ids(kind, ids) if len(ids) <= LONGEST_PAGE else self._whole(kind, rest, parameters)

    def references(
        self, kind: type[Record], ids: Collection[int], *, deleted: bool = False
    ) -> Sequence[tuple[int, str, str | None]]:
        """Id, uuid and name (None where the kind has none) of the rows with these ids."""
        if not ids:
            return []
        if kind in KINDS:
            rows = self._by_ids(kind, sorted(ids))
            return [(row.id, row.uuid, getattr(row, "name", None)) for row in rows if deleted or not row.deleted]
        name = "name" if "name" in columns(kind) else "NULL"
        alive = "" if deleted else "AND deleted = 0"
        wanted = ", ".join("?" * len(ids))
        statement = f'SELECT id, uuid, {name} FROM "{kind.kind}" WHERE id IN ({wanted}) {alive}'  # noqa: S608
        return self._con.execute(statement, sorted(ids)).fetchall()

    def ids_of(self, kind: type[Record], ident: str) -> list[int]:
        """The ids of all rows, deleted ones too, with this uuid, or with this name (in any case)."""
        if not is_text(ident):
            return []
        uuid = canonical(ident)
        named = "" if "name" not in columns(kind) or CANONICAL.fullmatch(uuid) else "OR lower(name) = lower(?)"
        found = self._con.execute(
            query.select(kind, f"WHERE uuid = ? {named}", ("id",)), [uuid, ident] if named else [uuid]
        )
        return [row_id for (row_id,) in found.fetchall()]

    def count(self, kind: type[Record], where: Mapping[str, Any]) -> int:
        """How many live rows match."""
        condition, parameters = query.conditions(kind, where)
        row = self._con.execute(query.aggregate(kind, "count(*)", condition), parameters).fetchone()
        return int(row[0]) if row else 0

    def claimable(self, kind: type[R], states: Sequence[str]) -> Rows[R]:
        """Live rows in these states that nobody holds a valid lease of, oldest first."""
        condition, parameters = query.conditions(kind, {"state": list(states)})
        free = "(owner IS NULL OR lease_until IS NULL OR lease_until <= ?)"
        moment = to_cell(kind, columns(kind)["lease_until"], self.now)
        return self._select(kind, f"WHERE {condition} AND {free} ORDER BY id", [*parameters, moment])

    def runnable(self, within: timedelta, since: datetime | None) -> Rows[Audit]:
        """Audits without a valid lease that are not over, or whose webhook was called since; oldest first.

        Without those that only wait: for their webhook, or for a next run that is farther away than `within`, unless
        they were changed since a moment.
        """
        alive = "(state IN ('PENDING', 'ONGOING') OR (state = 'SUCCEEDED' AND triggered_at IS NOT NULL))"
        free = "(owner IS NULL OR lease_until IS NULL OR lease_until <= ?)"
        # An owner whose lease is over has left a run undone.
        called = "(audit_type <> 'EVENT' OR triggered_at IS NOT NULL OR owner IS NOT NULL)"
        changed = "" if since is None else "OR coalesce(updated_at, created_at) >= ?"
        come = f"(audit_type <> 'CONTINUOUS' OR next_run_time IS NULL OR next_run_time <= ? OR end_time <= ? {changed})"
        condition, parameters = query.conditions(Audit, {})
        moments = [self.now, self.now + within, self.now, *([] if since is None else [since])]
        parameters += [to_cell(Audit, columns(Audit)["next_run_time"], moment) for moment in moments]
        rest = f"WHERE {condition} AND {alive} AND {free} AND {called} AND {come} ORDER BY id"
        return self._select(Audit, rest, parameters)

    def cells(self, kind: type[Record], names: Sequence[str]) -> list[tuple[Any, ...]]:
        """Some columns of all rows, deleted ones too, by id."""
        kinds = [columns(kind)[name] for name in names]
        rows = self._con.execute(query.select(kind, "ORDER BY id", names)).fetchall()
        return [tuple(from_cell(column, cell) for column, cell in zip(kinds, row, strict=True)) for row in rows]

    def events(self, after_id: int, limit: int, record_uuid: str | None) -> Rows[Event]:
        """Events behind an id, oldest first."""
        mine = "" if record_uuid is None else "AND record_uuid = ?"
        parameters = [after_id] if record_uuid is None else [after_id, canonical(record_uuid)]
        return self._select(Event, f"WHERE id > ? {mine} ORDER BY id {query.page_size(limit)}", parameters)

    def last_told(self, uuids: Sequence[str]) -> Mapping[str, str]:
        """The newest state that events tell of these records."""
        rest = "WHERE record_uuid IN (SELECT unnest(?::VARCHAR[])) AND new_state IS NOT NULL ORDER BY id"
        found = self._con.execute(query.select(Event, rest, ("record_uuid", "new_state")), [list(uuids)])
        return dict(found.fetchall())

    def newest_event(self) -> int:
        """The id of the newest event; 0 where nothing has happened yet."""
        row = self._con.execute(query.aggregate(Event, "max(id)", "true")).fetchone()
        return int(row[0]) if row and row[0] is not None else 0

    def made_with(self, key: str) -> tuple[str, str] | None:
        """Kind and uuid of the record created with an idempotency key."""
        return self._con.execute("SELECT kind, uuid FROM idempotency_key WHERE key = ?", [key]).fetchone()

    # -- writing ---------------------------------------------------------------------------------

    def insert(self, records: Sequence[R], *, read_back: bool = True) -> Rows[R]:
        """Store new records; ids and created_at are given here. Returns them as stored, unless nobody wants to know.

        Raises:
            Conflict: a name or uuid is taken. InvalidInput: a value does not fit, or the record is not a live one.
        """
        by_kind: defaultdict[type[R], list[int]] = defaultdict(list)
        for position, record in enumerate(records):
            by_kind[type(record)].append(position)
        stored: dict[int, R] = {}
        for kind, positions in by_kind.items():
            first = self._next_ids(kind.kind, len(positions))
            fresh = [self._fresh(records[position], row_id) for row_id, position in enumerate(positions, start=first)]
            rows = [to_row(record) for record in fresh]
            if kind is not Event:  # made here, with fresh uuids
                self._refuse_taken(kind, fresh)
            self._write_rows(kind, rows)
            if kind in TOLD:
                self._log((kind.kind, record.uuid, "create", None, _state(record), None) for record in fresh)
            if read_back:
                stored.update(zip(positions, (from_row(kind, row) for row in rows), strict=True))
        return [stored[position] for position in range(len(records))] if read_back else []

    def keep(self, records: Sequence[R]) -> Rows[R]:
        """Store rows of one kind that another store had, with their times, states and deletion; only ids are new.

        Raises:
            Conflict: a uuid or the name of a live row is taken. InvalidInput: a value does not fit.
        """
        if not records:
            return []
        kind = type(records[0])
        first = self._next_ids(kind.kind, len(records))
        fresh = [
            replace(record, id=row_id, uuid=canonical(record.uuid), deleted=row_id if record.deleted else 0)
            for row_id, record in enumerate(records, start=first)
        ]
        self._refuse(kind, ("uuid",), fresh, "true", [])
        if kind in UNIQUE and (alive := [record for record in fresh if not record.deleted]):
            self._refuse(kind, UNIQUE[kind], alive, "deleted = 0", [])
        self._write_rows(kind, [to_row(record) for record in fresh])
        return fresh

    def remember(self, key: str, record: Record) -> None:
        """Keep an idempotency key."""
        moment = to_cell(Event, columns(Event)["created_at"], self.now)
        row = [key, record.kind, record.uuid, moment]
        self._con.execute("INSERT INTO idempotency_key VALUES (?, ?, ?, ?)", row)

    def change(self, record: R, changes: Mapping[str, Any]) -> R:
        """Write columns of one row, and updated_at. Any column: who may change what is the caller's business."""
        kind = type(record)
        cells = self._cells(kind, {**changes, "updated_at": self.now})
        wanted = {name: from_cell(columns(kind)[name], cell) for name, cell in cells.items()}
        changed = replace(record, **wanted)
        unique = UNIQUE.get(kind, ())
        if any(_folded(getattr(changed, name)) != _folded(getattr(record, name)) for name in unique):
            self._refuse_taken(kind, [changed], uuids=False)
        self._con.execute(query.update(kind, cells, "id = ?"), [*cells.values(), record.id])
        self._written(kind, [record.id])
        return changed

    def edit(self, record: R, changes: Mapping[str, Any]) -> R:
        """`change` on somebody's wish: those who listen are told."""
        changed = self.change(record, changes)
        if isinstance(record, TOLD):
            self._log([(record.kind, record.uuid, "update", None, None, None)])
        return changed

    def note(
        self, record: Record, event: str, message: str | None, old: str | None = None, new: str | None = None
    ) -> None:
        """Tell those who listen of something that changes nothing in the record, such as a step of an audit."""
        self._log([(record.kind, record.uuid, event, old, new, message)])

    def move(self, record: R, event: str, changes: Mapping[str, Any], message: str | None) -> R:
        """Let an event happen to a record: new state, changes and the event's row.

        Raises:
            IllegalTransition: the state machine has no such edge.
        """
        machine = machine_of(type(record))
        old = cast("Claimable", record).state
        new = machine.after(old, event)
        changes = {**self._replanned(record, event), **changes, "state": new}
        if message is not None:
            changes["status_message"] = message
        if event == "delete":
            changes |= {"deleted_at": self.now, "deleted": record.id}
        changed = self.change(record, changes)
        self._log([(record.kind, record.uuid, event, old, new, message)])
        if event == "delete" and isinstance(record, ActionPlan):
            self._delete_parts(record)
        self._cancel_parts(record, new)
        return changed

    def _replanned(self, record: Record, event: str) -> Mapping[str, Any]:
        """A continuous audit that is resumed does not make up for the runs it missed meanwhile."""
        if isinstance(record, Audit) and event == "resume" and record.audit_type == "CONTINUOUS":
            with suppress(InvalidInput):  # its interval is none: told when it is run
                return {"next_run_time": after_pause(record, self.now)}
        return {}

    def _cancel_parts(self, record: Record, new: str) -> None:
        """A plan that is cancelled before it began takes its actions along."""
        if isinstance(record, ActionPlan) and new == PlanState.CANCELLED and record.state != PlanState.CANCELLING:
            self.move_all(Action, {"action_plan_id": record.id}, "cancel", {}, None)

    def move_many(self, wanted: Sequence[Move]) -> Outcomes:
        """Many single moves at once, in order: for each its record afterwards, or why it cannot be.

        A move that cannot be is left out; the others happen. Two of the same record happen one after the other.
        """
        at = {(m.kind, canonical(m.uuid)): record for m, record in self._targets(wanted)}
        plans = {a.action_plan_id for m in wanted if m.epoch is not None and isinstance(a := at.get(_key(m)), Action)}
        held = {plan.id: plan for plan in self.rows(ActionPlan, {"id": sorted(plans)})} if plans else {}
        results: Outcomes = []
        touched: dict[tuple[type[Record], str], set[str]] = {}
        happened, began = [], []
        for move in wanted:
            try:
                record = at.get(_key(move))
                if record is None:
                    record = self.live(move.kind, move.uuid)  # raises, in words
                if move.event == "delete":
                    raise InvalidInput("Records are deleted one by one: use delete")
                fence(held.get(record.action_plan_id) if isinstance(record, Action) else record, move.epoch)
                old = cast("Claimable", record).state
                new = machine_of(move.kind).after(old, move.event)
                again = self._replanned(record, move.event)
                changes = {**again, **move.changes, "state": new, "updated_at": self.now}
                if move.message is not None:
                    changes["status_message"] = move.message
                cells = self._cells(move.kind, changes)
                read = {name: from_cell(columns(move.kind)[name], cell) for name, cell in cells.items()}
                at[_key(move)] = replace(record, **read)
                touched.setdefault(_key(move), set()).update(cells)
                happened.append((record.kind, record.uuid, move.event, old, new, move.message))
                began.append((record, new))
                results.append(at[_key(move)])
            except TrimtabError as error:
                results.append(error)
        for kind in {kind for kind, _ in touched}:
            names = set().union(*(cells for (of, _), cells in touched.items() if of is kind))
            self._overwrite(kind, [at[key] for key in touched if key[0] is kind], sorted(names))
        if happened:
            self._log(happened)
        for record, new in began:
            self._cancel_parts(record, new)
        return results

    def _targets(self, wanted: Sequence[Move]) -> Iterable[tuple[Move, Record]]:
        for kind in {move.kind for move in wanted}:
            mine = {canonical(move.uuid): move for move in wanted if move.kind is kind}
            for record in self.rows(kind, {"uuid": sorted(mine)}):
                yield mine[record.uuid], record

    def _overwrite(self, kind: type[Record], records: Sequence[Record], names: Sequence[str]) -> None:
        """Write some columns of these rows, as the records have them."""
        self._written(kind, [record.id for record in records])
        if len(records) < BULK_FROM:
            for record in records:
                cells = self._cells(kind, {name: getattr(record, name) for name in names})
                self._con.execute(query.update(kind, cells, "id = ?"), [*cells.values(), record.id])
            return
        self._con.register("incoming", to_arrow(kind, [to_row(record) for record in records]))
        try:
            self._con.execute(query.update_from(kind, names, "incoming"))
        finally:
            self._con.unregister("incoming")

    def move_all(
        self, kind: type[Record], where: Mapping[str, Any], event: str, changes: Mapping[str, Any], message: str | None
    ) -> int:
        """Let an event happen to all live rows that match and whose state has the edge; returns how many."""
        edges = {state: new for (state, name), new in machine_of(kind).edges.items() if name == event}
        condition, parameters = query.conditions(kind, where)
        condition = f"{condition} AND state IN (SELECT unnest(?::VARCHAR[]))"
        parameters = [*parameters, [str(state) for state in edges]]
        rows = self._con.execute(query.select(kind, f"WHERE {condition}", ("uuid", "state")), parameters).fetchall()
        if not rows:
            return 0
        changes = {**changes, "updated_at": self.now, **({} if message is None else {"status_message": message})}
        if event == "delete":
            changes["deleted_at"] = self.now
        cells = self._cells(kind, changes)
        more = [f"state = CASE state {'WHEN ? THEN ? ' * len(edges)}END"]
        if event == "delete":
            more.append("deleted = id")
        states = [text for edge in edges.items() for text in (str(edge[0]), str(edge[1]))]
        statement = query.update(kind, cells, condition, more)
        self._con.execute(statement, [*cells.values(), *states, *parameters])
        self._written(kind)
        self._log((kind.kind, uuid, event, state, str(edges[state]), message) for uuid, state in rows)
        return len(rows)

    def change_all(self, kind: type[Record], where: Mapping[str, Any], changes: Mapping[str, Any]) -> None:
        """Write columns of all live rows that match."""
        condition, parameters = query.conditions(kind, where)
        cells = self._cells(kind, {**changes, "updated_at": self.now})
        self._con.execute(query.update(kind, cells, condition), [*cells.values(), *parameters])
        self._written(kind)

    def delete(self, record: R) -> R:
        """Soft delete; a plan takes its actions and indicators along, and its explanations are removed.

        Raises:
            IllegalTransition: the record's state does not allow it.
        """
        if record.kind in MACHINES:
            return self.move(record, "delete", {}, None)
        gone = self.change(record, {"deleted_at": self.now, "deleted": record.id})
        self._log([(record.kind, record.uuid, "delete", None, None, None)])
        return gone

    def move_older(self, kind: type[Record], state: str, before: datetime, event: str, message: str | None) -> int:
        """Let an event happen to all live rows of a state that were created before a moment; returns how many."""
        condition, parameters = query.conditions(kind, {"state": state})
        moment = to_cell(kind, columns(kind)["created_at"], before)
        rest = f"WHERE {condition} AND created_at < ?"
        found = self._con.execute(query.select(kind, rest, ("id",)), [*parameters, moment]).fetchall()
        return self.move_all(kind, {"id": [row_id for (row_id,) in found]}, event, {}, message) if found else 0

    def forget_candidates(self, audit: Audit) -> int:
        """Remove candidates of an audit's earlier runs that no live plan was made from; the number to go on with."""
        rows = query.select(CandidateRecord, "WHERE audit_id = ?", ("id", "number"))
        numbers = dict(self._con.execute(rows, [audit.id]).fetchall())
        if not numbers:
            return 0
        made = query.select(ActionPlan, "WHERE audit_id = ? AND deleted = 0", ("candidate",))
        kept = {number for (number,) in self._con.execute(made, [audit.id]).fetchall()}
        self.erase(CandidateRecord, "id", [row_id for row_id, number in numbers.items() if number not in kept])
        return max(numbers.values()) + 1

    # -- removing for good -----------------------------------------------------------------------

    def erase(self, kind: type[Record], column: str, ids: Sequence[int]) -> int:
        """Remove the rows themselves, deleted or not, whose column has one of these numbers; returns how many."""
        return self._erased(kind, f'"{column}" IN (SELECT unnest(?::BIGINT[]))', [list(ids)]) if ids else 0

    def erase_events(self, *, of: Sequence[str] = (), before: datetime | None = None) -> int:
        """Remove events of these records (by uuid), or before a moment; returns how many.

        The newest event stays: after a restart the numbers go on behind it, and those who follow events by number
        must not meet one twice.
        """
        older = "id < (SELECT max(id) FROM event)"
        if before is not None:
            moment = to_cell(Event, columns(Event)["created_at"], before)
            return self._erased(Event, f"created_at < ? AND {older}", [moment])
        return self._erased(Event, f"record_uuid IN (SELECT unnest(?::VARCHAR[])) AND {older}", [list(of)]) if of else 0

    def forget_keys(self, before: datetime) -> int:
        """Remove idempotency keys older than a moment; returns how many."""
        moment = to_cell(Event, columns(Event)["created_at"], before)
        row = self._con.execute("DELETE FROM idempotency_key WHERE created_at < ?", [moment]).fetchone()
        return int(row[0]) if row else 0

    def _erased(self, kind: type[Record], condition: str, parameters: Sequence[Any]) -> int:
        self._written(kind)
        row = self._con.execute(query.remove(kind, condition), parameters).fetchone()
        return int(row[0]) if row else 0

    # -- inside ----------------------------------------------------------------------------------

    def _delete_parts(self, plan: ActionPlan) -> None:
        self.move_all(Action, {"action_plan_id": plan.id}, "delete", {}, None)
        for indicator in self.rows(EfficacyIndicator, {"action_plan_id": plan.id}):
            self.change(indicator, {"deleted_at": self.now, "deleted": indicator.id})
        # Nobody can ask for them any more, and those of a large plan are the largest part of it.
        self._con.execute(query.remove(Explanation, "action_plan_id = ?"), [plan.id])

    def _written(self, kind: type[Record], ids: Collection[int] | None = None) -> None:
        self._wrote.add(kind)
        self._kept.forget(kind, ids)

    def _select(self, kind: type[R], rest: str, parameters: Sequence[Any]) -> Rows[R]:
        if kind in KINDS:  # a scan of the few columns it is about is cheap, even over many rows
            ids = self._ids(kind, rest, parameters)
            if len(ids) <= LONGEST_PAGE:
                return self._by_ids(kind, ids)
        return self._whole(kind, rest, parameters)

    def _ids(self, kind: type[Record], rest: str, parameters: Sequence[Any]) -> list[int]:
        return [row_id for (row_id,) in self._con.execute(query.select(kind, rest, ("id",)), parameters).fetchall()]

    def _whole(self, kind: type[R], rest: str, parameters: Sequence[Any]) -> Rows[R]:
        rows = self._con.execute(query.select(kind, rest), parameters).fetchall()
        return [from_row(kind, row) for row in rows]

    def _by_ids(self, kind: type[R], ids: Sequence[int]) -> Rows[R]:
        """The rows with these ids, deleted or not, in their order."""
        found = self._kept.records(kind, ids)
        if lacking := [row_id for row_id in ids if row_id not in found]:
            rest = f"WHERE id IN ({', '.join('?' * len(lacking))})"
            fresh = [from_row(kind, row) for row in self._con.execute(query.select(kind, rest), lacking).fetchall()]
            found |= {record.id: record for record in fresh}
            if kind in KINDS and kind not in self._wrote:
                self._kept.keep(fresh)
        return [found[row_id] for row_id in ids if row_id in found]

    def _by_id(self, kind: type[R], row_id: int, *, deleted: bool) -> R | None:
        return next((row for row in self._by_ids(kind, [row_id]) if deleted or not row.deleted), None)

    def _by_uuid(self, kind: type[R], uuid: str, *, deleted: bool) -> R | None:
        if kind not in KINDS:
            return self._first(kind, "WHERE uuid = ?", [uuid], deleted)
        row_id = self._known(kind).get(uuid)
        return None if row_id is None else self._by_id(kind, row_id, deleted=deleted)

    def _known(self, kind: type[Record]) -> Mapping[str, int]:
        """The ids of all uuids of one of KINDS."""
        return self._kept.ids(kind, lambda: dict(self._con.execute(query.select(kind, "", ("uuid", "id"))).fetchall()))

    def _first(self, kind: type[R], rest: str, parameters: Sequence[Any], deleted: bool) -> R | None:
        alive = "" if deleted else "deleted = 0 AND"
        rows = self._select(kind, rest.replace("WHERE", f"WHERE {alive}", 1), parameters)
        return rows[0] if rows else None

    def _fresh(self, record: R, row_id: int) -> R:
        if record.deleted or record.deleted_at is not None:
            raise InvalidInput(f"{record.kind} {record.uuid} is deleted already: only live records can be created")
        if not record.uuid:
            raise InvalidInput(f"{record.kind}.uuid is empty: give a uuid")
        if record.kind in MACHINES:
            state, states = cast("Claimable", record).state, MACHINES[record.kind].states
            if state not in list(states) or state == "DELETED":
                raise InvalidInput(f"{record.kind}.state cannot be {state!r}: use one of {', '.join(states)}")
        return replace(record, id=row_id, uuid=canonical(record.uuid), created_at=record.created_at or self.now)

    def _refuse_taken(self, kind: type[R], records: Sequence[R], *, uuids: bool = True) -> None:
        if uuids:
            self._refuse(kind, ("uuid",), records, "true", [])
        if kind in UNIQUE:
            self._refuse(kind, UNIQUE[kind], records, "deleted = 0 AND id <> ?", [records[0].id])

    def _refuse(
        self, kind: type[R], names: Sequence[str], records: Sequence[R], among: str, parameters: Sequence[Any]
    ) -> None:
        """Conflict when two of these records, or one of them and a stored one, are called the same.

        Names are compared in any case; uuids have but one spelling here, and looking for them exactly is faster.
        """
        exact = names == ("uuid",)
        text = "{}" if exact else "lower({})"
        asked = [tuple(getattr(record, name) for name in names) for record in records]
        folded = asked if exact else [tuple(map(_folded, values)) for values in asked]
        if len(set(folded)) < len(folded):
            raise _taken(kind, next(v for n, v in enumerate(asked) if folded[n] in folded[:n]))
        mine = ", ".join(text.format(f'"{name}"') for name in names)
        if exact and kind in KINDS:
            known = self._known(kind)
            taken = self._by_ids(kind, [known[uuid] for (uuid,) in asked if uuid in known])
            if taken:
                raise _taken(kind, [taken[0].uuid])
            return
        if len(records) == 1:  # much the most frequent, and twice as fast without a subquery
            same, values = f"({mine}) = ({', '.join([text.format('?')] * len(names))})", [*asked[0]]
        else:
            texts = ", ".join([text.format("unnest(?::VARCHAR[])")] * len(names))
            same, values = f"({mine}) IN (SELECT {texts})", [list(column) for column in zip(*asked, strict=True)]
        rest = f"WHERE {same} AND {among} LIMIT 1"
        found = self._con.execute(query.select(kind, rest, names), [*values, *parameters]).fetchone()
        if found:
            like = tuple(map(_folded, found))
            raise _taken(kind, asked[folded.index(like)] if like in folded else found)

    def _write_rows(self, kind: type[Record], rows: Sequence[tuple[Any, ...]]) -> None:
        self._written(kind, ())
        if kind in KINDS:
            names = tuple(columns(kind))
            at_uuid, at_id = names.index("uuid"), names.index("id")
            self._kept.added(kind, ((row[at_uuid], row[at_id]) for row in rows))
        if len(rows) < BULK_FROM:
            for row in rows:
                self._con.execute(query.insert(kind), row)
            return
        self._con.register("incoming", to_arrow(kind, rows))
        try:
            self._con.execute(query.insert_from(kind, "incoming"))
        finally:
            self._con.unregister("incoming")

    def _cells(self, kind: type[Record], changes: Mapping[str, Any]) -> dict[str, Any]:
        return {
            name: to_cell(kind, query.column_of(kind, name, f"{kind.__name__} has no field {name}"), value)
            for name, value in changes.items()
        }

    def _log(self, happened: Iterable[tuple[str, str, str, str | None, str | None, str | None]]) -> None:
        self.insert(
            [
                Event(uuid=str(uuid4()), record_kind=kind, record_uuid=uuid, event=event, old_state=old, new_state=new,
                      message=message)
                for kind, uuid, event, old, new, message in happened
            ]
        )  # fmt: skip


class Move(NamedTuple):
    """One event for one record, as `Store.transition` takes it."""

    kind: type[Record]
    uuid: str
    event: str
    changes: Mapping[str, Any]
    message: str | None = None
    epoch: int | None = None


def _key(move: Move) -> tuple[type[Record], str]:
    return move.kind, canonical(move.uuid)


def fence(held: Record | None, epoch: int | None) -> None:
    """Let pass who holds the record at this epoch, or who does not say.

    Raises:
        Conflict: somebody else has claimed it since. InvalidInput: such records cannot be claimed.
    """
    if epoch is None:
        return
    if not isinstance(held, Claimable):
        raise InvalidInput(f"A {held.kind if held else 'missing record'} cannot be claimed and has no epoch")
    if held.epoch != epoch:
        raise Conflict(
            f"The {held.kind} {held.uuid} is at epoch {held.epoch} (owner {held.owner}), not {epoch}: "
            "somebody else has claimed it since"
        )


def machine_of(kind: type[Record]) -> Machine:
    """The state machine of a kind.

    Raises:
        InvalidInput: the kind has none.
    """
    try:
        return MACHINES[kind.kind]
    except KeyError:
        raise InvalidInput(f"A {kind.kind} has no states: nothing can happen to it") from None


def missing(kind: type[Record], ident: object) -> NotFound:
    """The error in the API's words."""
    if kind is Service:
        return NotFound(f"The service {ident} cannot be found.")
    return NotFound(f"{CALLED.get(kind, kind.__name__)} {ident} could not be found")


def _state(record: Record) -> str | None:
    return getattr(record, "state", None)


def _integer(ident: int | str) -> int | None:
    """An id, when it looks exactly like one and a row could have it."""
    try:
        number = int(ident)
    except ValueError:
        return None
    return number if str(number) == str(ident) and abs(number) < 2**63 else None


def _folded(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


def _taken(kind: type[Record], what: Sequence[str]) -> Conflict:
    article = "An" if kind.kind[0] in "aeiou" else "A"
    return Conflict(f"{article} {kind.kind} with UUID or name {' on '.join(what)} already exists")
