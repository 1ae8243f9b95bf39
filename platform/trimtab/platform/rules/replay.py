"""A plan replayed against the continuous rules: what would be broken at some step of it."""

from __future__ import annotations

import numpy as np

from trimtab.platform.model import ClusterModel
from trimtab.platform.model.compute import Floats, Ints
from trimtab.platform.model.placement import ROUNDING
from trimtab.platform.proposal import Plan, PlannedAction
from trimtab.platform.rules.book import LONELY, SPLIT, SPREAD, Rulebook, rulebook
from trimtab.platform.rules.peaks import overdrawn
from trimtab.platform.rules.reach import obeying
from trimtab.platform.rules.scheduler import left_to_chance
from trimtab.platform.rules.violations import excess

MOST_REASONS = 20


def judge_plan(model: ClusterModel, plan: Plan) -> list[str]:
    """Where a plan breaks a continuous rule on its way; empty when it never does. At most `MOST_REASONS`.

    Migrations are replayed in the plan's order, one after the other. Rules about who shares a host are looked at with
    every migration that may overlap with the present one on both its hosts, limits of hosts in every order and overlap
    that the plan allows. What is broken before the plan and is never worse than that is no reason. Boots are not a
    plan's business. Whom a rule binds, continuous or not, must not be left to the cloud's choice; one that may be goes
    on counting where it was.
    """
    book = rulebook(model)
    if book.empty:
        return []
    left = [(n, action.instance) for n, action in enumerate(plan.actions) if action.instance >= 0 > action.destination]
    reasons = [f"action {n}: {why}" for n, instance in left for why in left_to_chance(model, instance)]
    if len(reasons) >= MOST_REASONS:
        return [*reasons[:MOST_REASONS], "and more"]
    if not any(rule.continuous for rule in book.rules):
        return reasons
    place = model.host_of.copy()
    start = excess(model, book, model.host_of)
    before = _ancestors(plan)
    moved: list[tuple[int, PlannedAction]] = []
    told: set[int] = set()  # rules that are broken already when one migration is done after the other
    for n, action in enumerate(plan.actions):
        if action.instance < 0:
            continue
        if action.destination >= 0:
            worse = _worse(model, book, start, place, action)
            reasons += [_text(model, book.rules[rule].label, action, n) for rule in worse]
            told.update(worse)
            near = [one for m, one in moved if not before[n] >> m & 1]
            reasons += _beside(model, book, near, action, n)
            place[action.instance] = action.destination
        moved.append((n, action))
        if len(reasons) >= MOST_REASONS:
            return [*reasons[:MOST_REASONS], "and more"]
    found = [(rule, n) for rule, n in overdrawn(model, book, plan, before) if rule not in told]
    reasons += [_text(model, book.rules[rule].label, plan.actions[n], n) for rule, n in found]
    return reasons[:MOST_REASONS] + ["and more"] * (len(reasons) > MOST_REASONS)


def _worse(model: ClusterModel, book: Rulebook, start: Floats, place: Ints, action: PlannedAction) -> list[int]:
    """Positions of continuous rules that a migration breaks, done after all before it."""
    if obeying(model, place, action.instance, at_every_step=True)[action.destination]:
        return []
    after = place.copy()
    after[action.instance] = action.destination
    always = np.array([rule.continuous for rule in book.rules])
    return np.flatnonzero(always & (excess(model, book, after) > start + ROUNDING)).tolist()


def _beside(model: ClusterModel, book: Rulebook, near: list[PlannedAction], action: PlannedAction, n: int) -> list[str]:
    """Instances still on the action's destination, or already on its source's side of the same migration."""
    return [
        _text(model, book.rule(relation).label, action, n)
        for one in near
        if action.destination in {one.source, one.destination} and one.instance != action.instance
        for relation in apart(book, one.instance, action.instance)[:1]
    ]


def apart(book: Rulebook, a: int, b: int) -> list[int]:
    """Continuous relations that forbid two instances to share a host."""
    first = dict(zip(*(part.tolist() for part in book.entries(a)), strict=True))
    second = dict(zip(*(part.tolist() for part in book.entries(b)), strict=True))
    found = []
    for relation in first.keys() | second.keys():
        if not book.always[relation]:
            continue
        both = relation in first and relation in second
        kind = book.kind[relation]
        if (
            (kind == SPREAD and both)
            or (kind == LONELY and not both)
            or (kind == SPLIT and both and first[relation] != second[relation])
        ):
            found.append(relation)
    return sorted(found)


def _ancestors(plan: Plan) -> list[int]:
    """All actions before each, as bits."""
    found: list[int] = []
    for action in plan.actions:
        bits = 0
        for parent in action.parents:
            bits |= found[parent] | 1 << parent
        found.append(bits)
    return found


def _text(model: ClusterModel, label: str, action: PlannedAction, n: int) -> str:
    name = model.instance_name(action.instance) or model.instance_id(action.instance)
    return f"action {n}: rule {label} would be broken while {name} goes to {model.host_name(action.destination)}"
