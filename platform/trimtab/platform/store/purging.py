"""What a purge removes for good: soft-deleted rows and what hangs on them; a pure choice among sketches of rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple

from trimtab.platform.errors import InvalidInput, NotFound
from trimtab.platform.records import (
    Action,
    ActionPlan,
    Audit,
    AuditTemplate,
    CandidateRecord,
    EfficacyIndicator,
    Event,
    Explanation,
    Goal,
    Record,
    Strategy,
    WhatIf,
)
from trimtab.platform.states import AuditState, PlanState
from trimtab.platform.store.transaction import Transaction

# Parents stand before their children; the order within `parents` is the order in which groups are formed.
PARENTS: Mapping[type[Record], Mapping[str, type[Record]]] = {
    Goal: {},
    Strategy: {"goal_id": Goal},
    AuditTemplate: {"goal_id": Goal, "strategy_id": Strategy},
    Audit: {"goal_id": Goal, "strategy_id": Strategy},
    ActionPlan: {"audit_id": Audit, "strategy_id": Strategy},
    Action: {"action_plan_id": ActionPlan},
    WhatIf: {},
}
BUSY: Mapping[type[Record], Collection[str]] = {
    Audit: (AuditState.PENDING, AuditState.ONGOING),
    ActionPlan: (PlanState.PENDING, PlanState.ONGOING, PlanState.CANCELLING),
}
# What has no life of its own: it goes with the row it belongs to, and is not counted against a limit.
BELONGINGS: Mapping[type[Record], tuple[str, type[Record]]] = {
    Explanation: ("action_plan_id", ActionPlan),
    EfficacyIndicator: ("action_plan_id", ActionPlan),
    CandidateRecord: ("audit_id", Audit),
}
Key = tuple[type[Record], int]


class Sketch(NamedTuple):
    """As much of a row as a purge looks at. `deleted_at` None: it is live; `busy`: somebody works on it."""

    kind: type[Record]
    id: int
    uuid: str
    deleted_at: datetime | None = None
    parents: tuple[Key, ...] = ()
    busy: bool = False

    @property
    def key(self) -> Key:
        """Kind and id."""
        return self.kind, self.id


@dataclass(slots=True)
class Purged:
    """How many rows of each kind a purge found, and how many it removed (a dry run: would remove)."""

    found: Counter[str] = field(default_factory=Counter)
    removed: Counter[str] = field(default_factory=Counter)


def purge(
    tx: Transaction,
    *,
    age_days: float | None = None,
    most: int | None = None,
    goal: str | None = None,
    orphans: bool = True,
    dry_run: bool = False,
) -> Purged:
    """Remove soft-deleted rows for good, children first; see `chosen` and `limited` for which.

    Args:
        tx: the transaction.
        age_days: only what was deleted longer ago than this.
        most: at most so many rows (explanations, indicators, candidates and events are not counted).
        goal: uuid or name of a soft-deleted goal: only it and what hangs on it.
        orphans: also live rows that hang on something that goes or is gone.
        dry_run: count only.

    Raises:
        NotFound: there is no such goal. InvalidInput: the goal is not deleted, or a number is negative.
    """
    if (age_days or 0) < 0 or (most or 0) < 0:
        raise InvalidInput("A purge takes an age in days and a number of rows from 0 on")
    before = None if age_days is None else tx.now - timedelta(days=age_days)
    sketches = _sketches(tx)
    found = chosen(sketches, before, None if goal is None else _dead_goals(tx, goal), orphans=orphans)
    taken = found if most is None else limited(sketches, found, most)
    done = Purged(Counter(kind.kind for kind, _ in found), Counter(kind.kind for kind, _ in taken))
    if not dry_run:
        done.removed += _erase(tx, [sketch for sketch in sketches if sketch.key in taken])
    return done


def chosen(
    sketches: Sequence[Sketch], before: datetime | None, goals: Collection[int] | None, *, orphans: bool
) -> set[Key]:
    """The rows that go.

    Those deleted before a moment (None: ever), or these goals; deleted rows below them, whenever that was; and as
    `orphans` live rows that hang on any of these, or (without `goals`) on something that is not there at all. A row
    stays when somebody works on it, and so does everything that a row which stays points at.

    Args:
        sketches: all rows, parents before their children.
        before: see above.
        goals: ids.
        orphans: see above.
    """
    there = {sketch.key for sketch in sketches}
    going: set[Key] = set()
    for sketch in sketches:
        below = any(parent in going for parent in sketch.parents)
        if sketch.deleted_at is not None:
            own = before is None or sketch.deleted_at < before
            if goals is not None:
                own = own and sketch.kind is Goal and sketch.id in goals
            goes = own or below
        else:
            lost = goals is None and any(parent not in there for parent in sketch.parents)
            goes = orphans and not sketch.busy and (below or lost)
        if goes:
            going.add(sketch.key)
    return _without_needed(sketches, going)


def limited(sketches: Sequence[Sketch], going: Collection[Key], most: int) -> set[Key]:
    """At most so many of these rows: live ones stay, and whole groups of deleted ones go, until the next is too large.

    A group is what hangs on one topmost row that goes: on a goal, or on a template or an audit of a goal that stays.
    """
    if len(going) <= most:
        return set(going)
    dead = {sketch.key for sketch in sketches if sketch.key in going and sketch.deleted_at is not None}
    dead = _without_needed(sketches, dead)  # by live rows, which stay
    group_of: dict[Key, Key] = {}
    groups: dict[Key, list[Key]] = {}
    for sketch in sketches:
        if sketch.key not in dead:
            continue
        top = next((group_of[parent] for parent in sketch.parents if parent in group_of), sketch.key)
        group_of[sketch.key] = top
        groups.setdefault(top, []).append(sketch.key)
    taken: set[Key] = set()
    for group in groups.values():
        if len(taken) + len(group) > most:
            break
        taken.update(group)
    return _without_needed(sketches, taken)


def _without_needed(sketches: Sequence[Sketch], going: set[Key]) -> set[Key]:
    """Without those that a row which stays points at."""
    kept = set(going)
    for sketch in reversed(sketches):
        if sketch.key not in kept:
            kept.difference_update(sketch.parents)
    return kept


def _dead_goals(tx: Transaction, goal: str) -> list[int]:
    same = tx.rows(Goal, {"id": tx.ids_of(Goal, goal)}, deleted=True)
    if not same:
        raise NotFound(f"Goal {goal} could not be found")
    dead = [row.id for row in same if row.deleted]
    if not dead:
        raise InvalidInput(f"Goal {goal} is not deleted: only what is deleted can be purged")
    return dead


def _sketches(tx: Transaction) -> list[Sketch]:
    found: list[Sketch] = []
    for kind, pointers in PARENTS.items():
        states = BUSY.get(kind)
        names = ["id", "uuid", "deleted_at", *pointers, *(["state"] if states else [])]
        for row_id, uuid, deleted_at, *rest in tx.cells(kind, names):
            parents = tuple(
                (parent, number) for parent, number in zip(pointers.values(), rest, strict=False) if number is not None
            )
            busy = states is not None and rest[-1] in states
            found.append(Sketch(kind, row_id, uuid, deleted_at, parents, busy))
    return found


def _erase(tx: Transaction, gone: Sequence[Sketch]) -> Counter[str]:
    """Remove these rows and what belongs to them; counts of the latter."""
    ids: dict[type[Record], list[int]] = {}
    for sketch in gone:
        ids.setdefault(sketch.kind, []).append(sketch.id)
    more: Counter[str] = Counter()
    for kind, (column, owner) in BELONGINGS.items():
        more[kind.kind] += tx.erase(kind, column, ids.get(owner, []))
    more[Event.kind] += tx.erase_events(of=_uuids(gone))
    for kind in reversed(list(PARENTS)):
        tx.erase(kind, "id", ids.get(kind, []))
    return +more


def _uuids(sketches: Iterable[Sketch]) -> list[str]:
    return [sketch.uuid for sketch in sketches]
