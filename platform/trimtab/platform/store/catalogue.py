"""Catalogue synchronisation: plug-ins to goal, strategy, action and scoring engine rows, with Watcher's consequences.

One deliberate difference from Watcher: rewording (display names, descriptions inside specifications) updates a row in
place; only a change of substance replaces it and cancels what depended on it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar
from uuid import uuid4

from trimtab.platform.errors import InvalidInput
from trimtab.platform.records import (
    ActionDescription,
    ActionPlan,
    Audit,
    AuditTemplate,
    Goal,
    Record,
    ScoringEngine,
    Strategy,
)
from trimtab.platform.store.transaction import Transaction

R = TypeVar("R", Goal, Strategy, ScoringEngine)
WORDS = frozenset({"description", "title"})
NAMES = frozenset({"properties", "patternProperties", "$defs", "definitions"})  # their keys are names, never words
DATA = frozenset({"default", "enum", "const", "examples"})


@dataclass(slots=True)
class Synced:
    """What a synchronisation did, as texts like "goal dummy"."""

    created: list[str] = field(default_factory=list)
    reworded: list[str] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)


def sync(
    tx: Transaction,
    goals: Sequence[Goal],
    strategies: Sequence[tuple[Strategy, str]],
    action_descriptions: Mapping[str, str],
    scoring_engines: Sequence[ScoringEngine] | None = None,
) -> Synced:
    """Make the stored catalogue equal to what was found; strategies come with the name of their goal.

    New: created. Replaced goal: templates and audits point to the new row, plans of those audits are cancelled (and
    its strategies are replaced with it). Replaced strategy: templates, audits and plans point to the new row, audits
    and plans are cancelled. Removed: the row is soft-deleted; audits are cancelled; of a strategy also its plans, and
    templates forget it. "Cancelled" means: those whose state machine has the edge now. A scoring engine is replaced
    when its metainfo changes and reworded when only its description does; None leaves the stored ones alone.

    Raises:
        InvalidInput: a strategy's goal is missing, or a name is there twice.
    """
    known = {goal.name for goal in goals}
    _refuse_twice("goal", [goal.name for goal in goals])
    _refuse_twice("strategy", [strategy.name for strategy, _ in strategies])
    for strategy, goal in strategies:
        if goal not in known:
            raise InvalidInput(f"Strategy {strategy.name} serves goal {goal}, which no plug-in provides: install it")
    done = Synced()
    goal_ids = _sync_goals(tx, goals, done)
    _sync_strategies(tx, [replace(strategy, goal_id=goal_ids[goal]) for strategy, goal in strategies], done)
    _describe_actions(tx, action_descriptions, done)
    if scoring_engines is not None:
        _refuse_twice("scoring engine", [engine.name for engine in scoring_engines])
        _sync_scoring_engines(tx, scoring_engines, done)
    return done


def _sync_goals(tx: Transaction, goals: Sequence[Goal], done: Synced) -> dict[str, int]:
    stored = {goal.name: goal for goal in tx.rows(Goal, {})}
    ids: dict[str, int] = {}
    for goal in goals:
        old = stored.pop(goal.name, None)
        if old is not None and meaning(old.efficacy_specification) == meaning(goal.efficacy_specification):
            _reword(tx, old, goal, ("display_name", "efficacy_specification"), done)
            ids[goal.name] = old.id
            continue
        new = _put(tx, old, goal, done)
        ids[goal.name] = new.id
        if old is not None:
            tx.change_all(AuditTemplate, {"goal_id": old.id}, {"goal_id": new.id})
            audits = [audit.id for audit in tx.rows(Audit, {"goal_id": old.id})]
            tx.change_all(Audit, {"goal_id": old.id}, {"goal_id": new.id})
            _cancel(tx, ActionPlan, {"audit_id": audits}, new)
    for gone in stored.values():
        _remove(tx, gone, done)
        _cancel(tx, Audit, {"goal_id": gone.id}, gone)
    return ids


def _sync_strategies(tx: Transaction, strategies: Sequence[Strategy], done: Synced) -> None:
    stored = {strategy.name: strategy for strategy in tx.rows(Strategy, {})}
    for strategy in strategies:
        old = stored.pop(strategy.name, None)
        same_goal = old is not None and old.goal_id == strategy.goal_id
        if old is not None and same_goal and meaning(old.parameters_spec) == meaning(strategy.parameters_spec):
            _reword(tx, old, strategy, ("display_name", "parameters_spec"), done)
            continue
        new = _put(tx, old, strategy, done)
        if old is not None:
            mine = {"strategy_id": old.id}
            audits = [audit.id for audit in tx.rows(Audit, mine)]
            _cancel(tx, Audit, mine, new)
            _cancel(tx, ActionPlan, {"audit_id": audits}, new)
            _cancel(tx, ActionPlan, mine, new)
            for kind in (AuditTemplate, Audit, ActionPlan):
                tx.change_all(kind, mine, {"strategy_id": new.id})
    for gone in stored.values():
        mine = {"strategy_id": gone.id}
        _remove(tx, gone, done)
        _cancel(tx, Audit, mine, gone)
        _cancel(tx, ActionPlan, mine, gone)
        tx.change_all(AuditTemplate, mine, {"strategy_id": None})


def _sync_scoring_engines(tx: Transaction, engines: Sequence[ScoringEngine], done: Synced) -> None:
    stored = {engine.name: engine for engine in tx.rows(ScoringEngine, {})}
    for engine in engines:
        old = stored.pop(engine.name, None)
        if old is not None and old.metainfo == engine.metainfo:
            _reword(tx, old, engine, ("description",), done)
        else:
            _put(tx, old, engine, done)
    for gone in stored.values():
        _remove(tx, gone, done)


def _describe_actions(tx: Transaction, descriptions: Mapping[str, str], done: Synced) -> None:
    stored = {row.action_type: row for row in tx.rows(ActionDescription, {})}
    for action_type, description in descriptions.items():
        row = stored.get(action_type)
        if row is None:
            fresh = ActionDescription(uuid=str(uuid4()), action_type=action_type, description=description)
            tx.insert([fresh])
            done.created.append(f"action {action_type}")
        elif row.description != description:
            tx.change(row, {"description": description})
            done.reworded.append(f"action {action_type}")


def meaning(spec: Any, names: bool = False) -> Any:
    """A specification without its words; `names`: the keys at this level are names of properties."""
    if isinstance(spec, list | tuple):
        return [meaning(item) for item in spec]
    if not isinstance(spec, Mapping):
        return spec
    kept: dict[str, Any] = {}
    for key, value in spec.items():
        if names:
            kept[key] = meaning(value)
        elif key in DATA:
            kept[key] = value
        elif key == "schema" and isinstance(value, str):
            kept[key] = _schema_meaning(value)
        elif not (key in WORDS and isinstance(value, str)):
            kept[key] = meaning(value, names=key in NAMES)
    return kept


def _schema_meaning(text: str) -> Any:
    try:
        return meaning(json.loads(text))
    except ValueError:
        return text


def _reword(tx: Transaction, old: R, new: R, names: Sequence[str], done: Synced) -> None:
    changes = {name: getattr(new, name) for name in names if getattr(old, name) != getattr(new, name)}
    if changes:
        tx.change(old, changes)
        done.reworded.append(f"{old.kind} {old.name}")


def _put(tx: Transaction, old: R | None, new: R, done: Synced) -> R:
    if old is not None:
        tx.delete(old)
        new = replace(new, uuid=str(uuid4()))
    (stored,) = tx.insert([new])
    (done.created if old is None else done.replaced).append(f"{new.kind} {new.name}")
    return stored


def _remove(tx: Transaction, gone: R, done: Synced) -> None:
    tx.delete(gone)
    done.removed.append(f"{gone.kind} {gone.name}")


def _cancel(tx: Transaction, kind: type[Record], where: Mapping[str, Any], because: Goal | Strategy) -> None:
    tx.move_all(kind, where, "cancel", {}, f"The {because.kind} {because.name} was changed or removed.")


def _refuse_twice(what: str, names: Sequence[str]) -> None:
    for name in {name for name in names if names.count(name) > 1}:
        raise InvalidInput(f"Two plug-ins are called {name}: rename or remove one {what}")
