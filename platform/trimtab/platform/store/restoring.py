"""Taking over records of another store: ids are mapped, uuids, times and states stay, what is there already stays."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, TypeVar

from trimtab.platform.records import (
    Action,
    ActionPlan,
    Audit,
    AuditTemplate,
    EfficacyIndicator,
    Goal,
    Record,
    Strategy,
)
from trimtab.platform.store.rows import canonical
from trimtab.platform.store.transaction import Transaction

R = TypeVar("R", bound=Record)
Named = TypeVar("Named", Goal, Strategy, AuditTemplate, Audit)
CatalogueRow = TypeVar("CatalogueRow", Goal, Strategy)


class Heritage(NamedTuple):
    """Records of another store: `id` and the columns `*_id` are that store's."""

    goals: Sequence[Goal] = ()
    strategies: Sequence[Strategy] = ()
    audit_templates: Sequence[AuditTemplate] = ()
    audits: Sequence[Audit] = ()
    action_plans: Sequence[ActionPlan] = ()
    actions: Sequence[Action] = ()
    efficacy_indicators: Sequence[EfficacyIndicator] = ()


@dataclass(slots=True)
class Restored:
    """How many records of each kind came over or were here already, and what a person should know."""

    brought: Counter[str] = field(default_factory=Counter)
    here_already: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)


def restore(tx: Transaction, heritage: Heritage) -> Restored:
    """Write what is not there yet (by uuid).

    Goals and strategies are matched by name with the installed ones, which take over the uuids that clients know; one
    that is not installed comes as a deleted row, so that history still tells its name. A name that is taken here gets
    the record's uuid appended.

    Raises:
        InvalidInput: a value does not fit its column; nothing is written.
    """
    done = Restored()
    goals = _catalogue(tx, heritage.goals, done)
    strategies = _catalogue(tx, [replace(one, goal_id=goals.get(one.goal_id, 0)) for one in heritage.strategies], done)

    def pointed(record: AuditTemplate | Audit) -> dict[str, Any]:
        strategy = None if record.strategy_id is None else strategies.get(record.strategy_id)
        return {"goal_id": goals.get(record.goal_id, 0), "strategy_id": strategy}

    templates = [replace(one, **pointed(one)) for one in heritage.audit_templates]
    _records(tx, AuditTemplate, _free_names(tx, templates, done), done)
    audits = _records(tx, Audit, _free_names(tx, [replace(one, **pointed(one)) for one in heritage.audits], done), done)
    plans = _records(
        tx,
        ActionPlan,
        [
            replace(one, audit_id=audits.get(one.audit_id, 0), strategy_id=strategies.get(one.strategy_id, 0))
            for one in heritage.action_plans
        ],
        done,
    )
    for kind, parts in ((Action, heritage.actions), (EfficacyIndicator, heritage.efficacy_indicators)):
        mine = [replace(p, action_plan_id=plans[p.action_plan_id]) for p in parts if p.action_plan_id in plans]
        _records(tx, kind, mine, done)
    return done


def _catalogue(tx: Transaction, rows: Sequence[CatalogueRow], done: Restored) -> dict[int, int]:
    """Ids there to ids here. Live rows come before deleted ones of the same name, so that they give their uuid."""
    ids: dict[int, int] = {}
    for row in sorted(rows, key=lambda row: row.deleted != 0):
        kind = type(row)
        here = next(iter(tx.rows(kind, {"uuid": row.uuid}, deleted=True)), None)
        installed = next((one for one in tx.rows(kind, {}) if one.name.lower() == row.name.lower()), None)
        if here is None and installed is not None:
            here = installed if row.deleted else tx.change(installed, {"uuid": canonical(row.uuid)})
        if here is not None:
            done.here_already[kind.kind] += 1
        else:
            (here,) = tx.keep([replace(row, deleted=1, deleted_at=row.deleted_at or tx.now)])
            done.brought[kind.kind] += 1
            if not row.deleted:
                done.notes.append(f"{kind.kind} {row.name} is not installed here: what used it is kept, but cannot run")
        ids[row.id] = here.id
    return ids


def _records(tx: Transaction, kind: type[R], rows: Sequence[R], done: Restored) -> dict[int, int]:
    """Write what is new; ids there to ids here of all of them."""
    known = {row.uuid: row.id for row in tx.rows(kind, {}, deleted=True)} if rows else {}
    new = [row for row in rows if canonical(row.uuid) not in known]
    known |= {row.uuid: row.id for row in tx.keep(new)}
    done.brought[kind.kind] += len(new)
    done.here_already[kind.kind] += len(rows) - len(new)
    return {row.id: known[canonical(row.uuid)] for row in rows}


def _free_names(tx: Transaction, rows: Sequence[Named], done: Restored) -> list[Named]:
    if not rows:
        return []
    here = tx.rows(type(rows[0]), {}, deleted=True)
    mine = {row.uuid for row in here}
    taken = _folded(row.name for row in here if not row.deleted)
    renamed: list[Named] = []
    for row in rows:
        free = row
        if not row.deleted and canonical(row.uuid) not in mine:
            if row.name.lower() in taken:
                free = replace(row, name=f"{row.name[:26]}-{row.uuid}")
                done.notes.append(f"{row.kind} {row.name}: the name is taken here, it is called {free.name} now")
            taken[free.name.lower()] += 1
        renamed.append(free)
    return renamed


def _folded(names: Iterable[str]) -> Counter[str]:
    return Counter(name.lower() for name in names)
