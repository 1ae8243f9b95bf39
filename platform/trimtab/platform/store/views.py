"""Records together with what they point at, read in one transaction: what a list or an object of the API needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar, cast

from trimtab.platform.records import (
    Action,
    ActionDescription,
    ActionPlan,
    Audit,
    EfficacyIndicator,
    Goal,
    Record,
    Strategy,
)
from trimtab.platform.store.rows import columns
from trimtab.platform.store.transaction import Transaction

R = TypeVar("R", bound=Record)

POINTERS: Mapping[str, type[Record]] = {
    "goal_id": Goal,
    "strategy_id": Strategy,
    "audit_id": Audit,
    "action_plan_id": ActionPlan,
}


class Reference(NamedTuple):
    """As much of a row as others show of it."""

    uuid: str
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Related:
    """Rows that other rows point at, by id (those not found are absent), and the parts of plans by the plan's id."""

    goals: Mapping[int, Reference] = field(default_factory=dict)
    strategies: Mapping[int, Reference] = field(default_factory=dict)
    audits: Mapping[int, Reference] = field(default_factory=dict)
    plans: Mapping[int, Reference] = field(default_factory=dict)
    indicators: Mapping[int, Sequence[EfficacyIndicator]] = field(default_factory=dict)
    descriptions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class View(Generic[R]):
    """Rows and what they point at."""

    rows: Sequence[R]
    related: Related

    @property
    def row(self) -> R:
        """The only one."""
        (row,) = self.rows
        return row


def view(
    tx: Transaction, kind: type[R], where: Mapping[str, Any], called: Mapping[str, str], paging: Mapping[str, Any]
) -> View[R]:
    """One page of rows; `called` narrows it to those that point, by a column of POINTERS, at what is called so.

    That is by uuid or name, and it may be deleted. When nothing is called so, no row matches; an unknown marker is
    told all the same.

    Raises:
        InvalidInput: unknown column, sort key or direction, or a limit below one. NotFound: unknown marker.
    """
    found = {column: tx.ids_of(POINTERS[column], ident) for column, ident in called.items()}
    rows = tx.rows(kind, {**where, **found}, **paging)
    return View(rows, related(tx, kind, rows, deleted=bool(paging.get("deleted"))))


def related(tx: Transaction, kind: type[Record], rows: Sequence[Record], *, deleted: bool = False) -> Related:
    """What these rows of one kind point at; deleted ones only if asked for."""
    pointed = {
        target: tx.references(target, {getattr(row, column) for row in rows} - {None}, deleted=deleted)
        for column, target in POINTERS.items()
        if rows and column in columns(kind)
    }
    references = {
        target: {row_id: Reference(uuid, name) for row_id, uuid, name in found} for target, found in pointed.items()
    }
    indicators: dict[int, list[EfficacyIndicator]] = {}
    if rows and kind is ActionPlan:
        for one in tx.rows(EfficacyIndicator, {"action_plan_id": [row.id for row in rows]}, deleted=deleted):
            indicators.setdefault(one.action_plan_id, []).append(one)
    types = sorted({row.action_type for row in cast("Sequence[Action]", rows)}) if kind is Action else []
    described = tx.rows(ActionDescription, {"action_type": types}) if types else []
    return Related(
        goals=references.get(Goal, {}),
        strategies=references.get(Strategy, {}),
        audits=references.get(Audit, {}),
        plans=references.get(ActionPlan, {}),
        indicators=indicators,
        descriptions={row.action_type: row.description for row in described},
    )
