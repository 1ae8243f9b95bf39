"""What a finished candidate would break: the verdict on it, whoever made it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trimtab.platform.model import RESOURCES, ClusterModel, GroupPolicy
from trimtab.platform.model.compute import Bools, Ints
from trimtab.platform.model.placement import ROUNDING
from trimtab.platform.proposal import Act, Candidate, Migrate, Step
from trimtab.platform.rules.book import rulebook
from trimtab.platform.rules.scheduler import bound_by_rules, left_to_chance
from trimtab.platform.rules.violations import excess, group_name

MOST_REASONS = 20


def judge(model: ClusterModel, candidate: Candidate) -> list[str]:
    """Why a candidate must be rejected; empty when it is sound. At most `MOST_REASONS`, then "and more".

    Looks at every move and at the placement when all moves are done. Room at every step on the way is the planner's
    promise and is checked again by the rehearsal. What was broken before and is not made worse is no reason. A move
    whose destination is left to the cloud is refused when a rule binds the instance that the cloud does not know; the
    others still count against limits where they were, because the cloud may choose another host of the same group.
    """
    reasons: list[str] = []
    receives = model.usable.copy()
    place = model.host_of.copy()
    for step in candidate.steps:
        if isinstance(step, Act):
            if step.host >= model.hosts:
                reasons.append(f"{step.action_type} of host row {step.host}: no such row in the model")
            elif step.action_type == "change_nova_service_state" and step.host >= 0:
                receives[step.host] = step.parameters.get("state") == "enabled" and bool(model.up[step.host])
        elif not 0 <= step.instance < model.instances or not -1 <= step.destination < model.hosts:
            reasons.append(f"move of row {step.instance} to row {step.destination}: no such row in the model")
        else:
            reasons += _of_move(model, step, receives, place)
            place[step.instance] = step.destination
        if len(reasons) > MOST_REASONS:
            break
    else:
        reasons += _of_boots(model, candidate, receives, place)
        reasons += [*_over_capacity(model, place), *_groups_broken(model, place), *_rules_broken(model, place)]
    return reasons if len(reasons) <= MOST_REASONS else [*reasons[:MOST_REASONS], "and more"]


def objections(model: ClusterModel, steps: Sequence[Step]) -> dict[int, list[str]]:
    """What speaks against moves by themselves, whatever the others do, by position; see `judge`.

    Args:
        model: who is where.
        steps: of one candidate, rows of the model.
    """
    receives, place = model.usable.copy(), model.host_of.copy()
    for step in steps:
        if isinstance(step, Act) and step.action_type == "change_nova_service_state" and step.host >= 0:
            receives[step.host] = step.parameters.get("state") == "enabled" and bool(model.up[step.host])
    moves = [(n, step) for n, step in enumerate(steps) if isinstance(step, Migrate)]
    return {n: found for n, move in moves if (found := _of_move(model, move, receives, place))}


def crowded(model: ClusterModel, place: Ints) -> Bools:
    """Hosts that a placement fills beyond their capacity, and more than they are filled now, [H]."""
    after = model.used(place)
    return np.asarray(((after > model.capacity + ROUNDING) & (after > model.used() + ROUNDING)).any(axis=1))


def _questionable(model: ClusterModel, move: Migrate, receives: Bools, place: Ints) -> bool:
    """Whether `_of_move` would find anything: nearly never, so that names are not looked up for nothing."""
    v, host = move.instance, move.destination
    if model.locked[v] or model.excluded[v] or place[v] < 0:
        return True
    if host < 0:
        return bool(bound_by_rules(model)[v])
    zone = model.pinned_zone[v]
    return bool(
        place[v] == host or not model.up[host] or not receives[host] or (zone >= 0 and model.zone.codes[host] != zone)
    )


def _of_move(model: ClusterModel, move: Migrate, receives: Bools, place: Ints) -> list[str]:
    if not _questionable(model, move, receives, place):
        return []
    name, found = model.instance_name(move.instance) or model.instance_id(move.instance), []
    if model.locked[move.instance]:
        found.append(f"instance {name} is locked")
    if model.excluded[move.instance]:
        found.append(f"instance {name} is excluded by the audit's scope")
    if place[move.instance] < 0:
        found.append(f"instance {name} is on no host")
    if move.destination < 0:
        return [*found, *left_to_chance(model, move.instance)]
    host = model.host_name(move.destination)
    if place[move.instance] == move.destination:
        found.append(f"instance {name} is on {host} already")
    if not model.up[move.destination]:
        found.append(f"host {host} is down and cannot receive {name}")
    elif not receives[move.destination]:
        found.append(f"host {host} is disabled and cannot receive {name}")
    zone = int(model.pinned_zone[move.instance])
    if zone >= 0 and model.zone.codes[move.destination] != zone:
        found.append(f"instance {name} is bound to zone {model.zone.names[zone]}; host {host} is not in it")
    return found


def _of_boots(model: ClusterModel, candidate: Candidate, receives: Bools, place: Ints) -> list[str]:
    """What speaks against starting instances where the candidate says; puts them there."""
    found: list[str] = []
    for instance, host in candidate.boots:
        if not 0 <= instance < model.instances or not 0 <= host < model.hosts:
            found.append(f"start of row {instance} on row {host}: no such row in the model")
            continue
        name, there = model.instance_name(instance) or model.instance_id(instance), model.host_name(host)
        zone = int(model.pinned_zone[instance])
        if place[instance] >= 0:
            found.append(f"instance {name} is on a host already and cannot be started on {there}")
        if not receives[host]:
            found.append(f"host {there} is down or disabled and cannot receive {name}")
        if zone >= 0 and model.zone.codes[host] != zone:
            found.append(f"instance {name} is bound to zone {model.zone.names[zone]}; host {there} is not in it")
        place[instance] = host
    return found


def _over_capacity(model: ClusterModel, place: Ints) -> list[str]:
    before, after = model.used(), model.used(place)
    worse = (after > model.capacity + ROUNDING) & (after > before + ROUNDING)
    return [
        f"host {model.host_name(int(host))} would hold {after[host, r]:g} of {model.capacity[host, r]:g} {RESOURCES[r]}"
        for host, r in np.argwhere(worse)
    ]


def groups_broken(model: ClusterModel, place: Ints) -> Ints:
    """How many members of each (hard) server group are where the policy does not want them, [G]."""
    broken = np.zeros(len(model.group_ids), np.int32)
    rows = np.flatnonzero((model.group >= 0) & (place >= 0))
    # One number a pair of group and host: sorting pairs is twenty times slower.
    pairs, members = np.unique(model.group[rows].astype(np.int64) * model.hosts + place[rows], return_counts=True)
    if not len(pairs):
        return broken
    groups = pairs // model.hosts
    anti = model.group_policy[groups] == GroupPolicy.ANTI_AFFINITY
    np.add.at(broken, groups[anti], members[anti] - 1)
    together = np.flatnonzero(model.group_policy == GroupPolicy.AFFINITY)
    largest = np.zeros(len(broken), np.int64)
    np.maximum.at(largest, groups, members)
    total = np.bincount(groups, members, len(broken)).astype(np.int64)
    broken[together] = (total - largest)[together]
    return broken


def _groups_broken(model: ClusterModel, place: Ints) -> list[str]:
    worse = np.flatnonzero(groups_broken(model, place) > groups_broken(model, model.host_of))
    policies = list(GroupPolicy)
    return [
        f"server group {group_name(model, int(g))} ({policies[model.group_policy[g]].wire}) would be broken"
        for g in worse
    ]


def _rules_broken(model: ClusterModel, place: Ints) -> list[str]:
    if not model.rules:
        return []
    book = rulebook(model)
    before, after = excess(model, book, model.host_of), excess(model, book, place)
    left = (place < 0) & (model.host_of >= 0)
    if left.any() and book.limits:
        limits = list(book.limits)
        after[limits] = excess(model, book, np.where(left, model.host_of, place))[limits]
    return [f"rule {book.rules[n].label} would be broken" for n in np.flatnonzero(after > before + ROUNDING)]


def preferences_missed(model: ClusterModel, place: Ints) -> Ints:
    """How many members of each soft server group are where it would rather not have them, [G]; never a refusal."""
    hard = {GroupPolicy.SOFT_AFFINITY: GroupPolicy.AFFINITY, GroupPolicy.SOFT_ANTI_AFFINITY: GroupPolicy.ANTI_AFFINITY}
    # -1 is no policy at all: only the soft groups count, as if they were hard.
    policy = np.array([hard.get(one, -1) for one in GroupPolicy], np.int8)[model.group_policy]
    return groups_broken(model.with_changes(group_policy=policy), place)
