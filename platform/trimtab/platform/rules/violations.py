"""What is against the rules in a placement: counted for every rule at once, named where somebody asks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from trimtab.platform.model import RESOURCES, ClusterModel, GroupPolicy
from trimtab.platform.model.compute import Floats, Ints
from trimtab.platform.model.placement import ROUNDING
from trimtab.platform.rules.book import AMONG, GATHER, LONELY, SPLIT, SPLIT_AMONG, SPREAD, Rulebook, host_mask, rulebook
from trimtab.platform.rules.kinds import HostLimit, Preserve, Root, Rule, SplitAmong

MOST_NAMES = 5


class Violation(NamedTuple):
    """One rule that is broken: whose rows it concerns, on which hosts, and the same for people."""

    rule: str
    members: tuple[int, ...]
    hosts: tuple[int, ...]
    text: str


def excess(model: ClusterModel, book: Rulebook, host_of: Ints) -> Floats:
    """How far a placement is from every rule of the book, by position; 0 = kept.

    Members (spread, gather, fence, ban, root, among, preserve) or hosts (lonely, split) that are wrong, at least; of
    limits what is too much. Instances on no host count nowhere.
    """
    found = np.zeros(len(book.rules))
    if book.empty:
        return found
    over = None
    for n, rule in enumerate(book.rules):
        if isinstance(rule, HostLimit):
            much = rule.load(model, host_of) - rule.most
            found[n] = much if much > ROUNDING else 0.0
        elif isinstance(rule, Root):
            members = rule.members[model.host_of[rule.members] >= 0]
            found[n] = np.count_nonzero(host_of[members] != model.host_of[members])
        elif isinstance(rule, Preserve):
            if over is None:
                over = model.used(host_of) > model.capacity + ROUNDING
            found[n] = len(_placed(rule.members, host_of, over[:, rule.resource]))
        elif rule.kind in {"fence", "ban"}:
            found[n] = len(_placed(rule.members, host_of, ~_mask(model, rule)))
    if book.relations:
        found[list(book.relations)] = _relations(model, book, host_of)
    return found


def broken(model: ClusterModel, book: Rulebook | None = None, host_of: Ints | None = None) -> list[Violation]:
    """Everything a placement breaks: capacity, zones, hard server groups, and every rule of the book.

    Args:
        model: hosts, instances and their own rules.
        book: extra rules; the model's own unless given.
        host_of: who is where, [V]; as it is in the model unless given.
    """
    book = rulebook(model) if book is None else book
    place = model.host_of if host_of is None else host_of
    found = _by_model(model, place)
    for n in np.flatnonzero(excess(model, book, place)).tolist():
        rule = book.rules[n]
        members, hosts = _who(model, rule, place)
        found.append(Violation(rule.label, members, hosts, _text(model, rule.label, members, hosts)))
    return found


def _by_model(model: ClusterModel, place: Ints) -> list[Violation]:
    found: list[Violation] = []
    used = model.used(place)
    for host, r in np.argwhere(used > model.capacity + ROUNDING).tolist():
        guests = tuple(np.flatnonzero(place == host).tolist())
        text = (
            f"capacity: host {model.host_name(host)} holds {used[host, r]:g} of "
            f"{model.capacity[host, r]:g} {RESOURCES[r]}"
        )
        found.append(Violation("capacity", guests, (host,), text))
    zone = np.where(place >= 0, model.zone.codes[place], -1)
    for v in np.flatnonzero((place >= 0) & (model.pinned_zone >= 0) & (zone != model.pinned_zone)).tolist():
        host = int(place[v])
        text = (
            f"zone: {_name(model, v)} is bound to zone {model.zone.names[model.pinned_zone[v]]} "
            f"and is on {model.host_name(host)}"
        )
        found.append(Violation("zone", (v,), (host,), text))
    start, rows = model.group_members
    for group in range(len(model.group_ids)):
        policy = GroupPolicy(int(model.group_policy[group]))
        if policy not in {GroupPolicy.AFFINITY, GroupPolicy.ANTI_AFFINITY}:
            continue
        members = rows[start[group] : start[group + 1]]
        wrong = _crowded(members, place) if policy == GroupPolicy.ANTI_AFFINITY else _minority(members, place, place)
        if len(wrong):
            label = f"server group {group_name(model, group)} ({policy.wire})"
            hosts = tuple(np.unique(place[wrong]).tolist())
            found.append(
                Violation(label, tuple(wrong.tolist()), hosts, _text(model, label, tuple(wrong.tolist()), hosts))
            )
    return found


def group_name(model: ClusterModel, group: int) -> str:
    """Name of a server group, or its id."""
    return str(model.group_names[group].as_py() or model.group_ids[group].as_py())


def _relations(model: ClusterModel, book: Rulebook, host_of: Ints) -> Floats:
    """Wrong members or hosts of every relation, [N]."""
    count = len(book.relations)
    relation = np.repeat(np.arange(count), np.diff(book.in_start))
    where = host_of[book.in_member]
    placed = where >= 0
    relation, where, side = relation[placed], where[placed], book.in_side[placed]
    kind = book.kind[relation]
    wrong = np.zeros(count)
    pick = kind == SPREAD
    pairs, members = np.unique(relation[pick].astype(np.int64) * model.hosts + where[pick], return_counts=True)
    np.add.at(wrong, pairs // max(model.hosts, 1), members - 1)
    # Gather and among: members less those in the fullest part; a part is a host or a group of hosts.
    grouped = (kind == GATHER) | (kind == AMONG) | (kind == SPLIT_AMONG)
    part = where.astype(np.int64)
    tabled = book.table[relation] >= 0
    part[tabled] = book.parts[book.table[relation[tabled]], where[tabled]]
    sides = int(side.max(initial=0)) + 1
    wide = model.hosts + 1
    team = relation[grouped] * np.int64(sides) + side[grouped]
    keys, members = np.unique(team * wide + part[grouped] + 1, return_counts=True)
    teams = keys // wide
    in_part = np.where(keys % wide > 0, members, 0)
    total, largest = np.zeros(count * sides, np.int64), np.zeros(count * sides, np.int64)
    np.add.at(total, teams, members)
    np.maximum.at(largest, teams, in_part)
    wrong += (total - largest).reshape(count, sides).sum(axis=1)
    # Split among: parts that two groups are in. Split: hosts that two groups are on.
    for chosen, at in ((kind == SPLIT_AMONG, part), (kind == SPLIT, where.astype(np.int64))):
        pick = chosen & (at >= 0)
        both = np.unique((relation[pick] * np.int64(sides) + side[pick]) * wide + at[pick])
        spot, groups = np.unique((both // wide) // sides * wide + both % wide, return_counts=True)
        np.add.at(wrong, spot[groups > 1] // wide, 1)
    lonely = kind == LONELY
    if lonely.any():
        guests = np.bincount(host_of[host_of >= 0], minlength=model.hosts)
        pairs, members = np.unique(relation[lonely] * np.int64(wide) + where[lonely], return_counts=True)
        np.add.at(wrong, pairs[guests[pairs % wide] > members] // wide, 1)
    return wrong


def _who(model: ClusterModel, rule: Rule, place: Ints) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Members and hosts a broken rule is about."""
    members, on = rule.members, place[rule.members]
    if isinstance(rule, HostLimit):
        hosts = rule.hosts[np.isin(rule.hosts, place)]
        return tuple(np.flatnonzero(np.isin(place, hosts)).tolist()), tuple(hosts.tolist())
    if rule.kind in {"fence", "ban"}:
        members = _placed(members, place, ~_mask(model, rule))
    elif isinstance(rule, Root):
        members = members[(model.host_of[members] >= 0) & (on != model.host_of[members])]
    elif isinstance(rule, Preserve):
        over = model.used(place) > model.capacity + ROUNDING
        members = _placed(members, place, over[:, rule.resource])
    elif rule.kind == "spread":
        members = _crowded(members, place)
    elif rule.kind == "lonely":
        strange = place >= 0
        strange[members] = False
        members = members[(on >= 0) & np.isin(on, place[strange])]
    elif rule.kind == "split":
        members = members[on >= 0]
    elif rule.kind == "gather":
        members = _minority(members, place, place)
    else:
        members = members[on >= 0] if isinstance(rule, SplitAmong) else _outside(model, rule, place)
    return tuple(members.tolist()), tuple(np.unique(place[members][place[members] >= 0]).tolist())


def wrong_members(model: ClusterModel, rule: Rule, host_of: Ints) -> Ints:
    """Members that a broken rule wants elsewhere (of some rules: among whom some must go elsewhere)."""
    return np.array(_who(model, rule, host_of)[0], np.int32)


def _outside(model: ClusterModel, rule: Rule, place: Ints) -> Ints:
    part = np.full(model.hosts + 1, -1)
    for number, group in enumerate(getattr(rule, "host_groups", ())):
        part[group] = number
    inside = part[place]
    members = rule.members
    wrong = _minority(members[inside[members] >= 0], inside, place)
    return np.union1d(members[(place[members] >= 0) & (inside[members] < 0)], wrong).astype(np.int32)


def _crowded(members: Ints, place: Ints) -> Ints:
    """Members that share a host with another."""
    members = members[place[members] >= 0]
    _, at, count = np.unique(place[members], return_inverse=True, return_counts=True)
    return members[count[at] > 1]


def _minority(members: Ints, part: Ints, place: Ints) -> Ints:
    """Members that are not where most are."""
    members = members[place[members] >= 0]
    if not len(members):
        return members
    values, at, count = np.unique(part[members], return_inverse=True, return_counts=True)
    return members[at != int(np.argmax(count))] if len(values) > 1 else members[:0]


def _placed(members: Ints, place: Ints, on: np.ndarray) -> Ints:
    members = members[place[members] >= 0]
    return members[on[place[members]]]


def _mask(model: ClusterModel, rule: Rule) -> np.ndarray:
    mask = host_mask(model, rule)
    return np.ones(model.hosts, bool) if mask is None else mask


def _name(model: ClusterModel, instance: int) -> str:
    return model.instance_name(instance) or model.instance_id(instance)


def _text(model: ClusterModel, label: str, members: Sequence[int], hosts: Sequence[int]) -> str:
    who = [_name(model, v) for v in members[:MOST_NAMES]] + ["…"] * (len(members) > MOST_NAMES)
    where = [model.host_name(h) for h in hosts[:MOST_NAMES]] + ["…"] * (len(hosts) > MOST_NAMES)
    return f"rule {label} is broken by {', '.join(who) or 'nobody'} on {', '.join(where) or 'no host'}"
