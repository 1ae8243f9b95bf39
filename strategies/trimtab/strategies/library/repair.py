"""Repair: cure what is against the rules and place who is on no host, and move nothing else.

What is broken today (capacity, zones, server groups, every rule the model carries) is cured with the fewest moves that
could be found: the one instance whose leaving cures a host, the members a rule has too many somewhere. Instances that
should run but are on no host get one by best fit; that is no migration and no action of a plan: the candidate names
them as `boots` and in its notes, for whoever starts them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict
from pydantic import Field as Option

from trimtab.platform.contracts import Context
from trimtab.platform.model import MEMORY, ClusterModel, GroupPolicy, InstanceState
from trimtab.platform.model.compute import Bools, Floats, Ints
from trimtab.platform.model.placement import ROUNDING
from trimtab.platform.proposal import Boot, Candidate, Migrate
from trimtab.platform.rules import Rule, Spread, Violation, broken, rulebook
from trimtab.platform.rules.kinds import (
    Among,
    Ban,
    Fence,
    Gather,
    HostLimit,
    Lonely,
    MaxOnline,
    Preserve,
    Split,
    SplitAmong,
)
from trimtab.platform.rules.violations import excess, wrong_members
from trimtab.platform.snapshot import Need, Snapshot
from trimtab.strategies.draining import scarcity
from trimtab.strategies.feasibility import Field, field_of, put, used_of
from trimtab.strategies.loads import MIGRATES_COLD, MIGRATES_LIVE, labels, note
from trimtab.strategies.mending import in_order, make_room, move, place, unload

HOMELESS = (
    InstanceState.ACTIVE,
    InstanceState.PAUSED,
    InstanceState.SUSPENDED,
    InstanceState.STOPPED,
    InstanceState.RESCUED,
    InstanceState.RESIZED,
)
ROUNDS = 3  # curing one rule may let another be cured
NAMED = 5  # violations that a note quotes


class Parameters(BaseModel):
    """What an audit may set."""

    model_config = ConfigDict(extra="forbid", strict=True)

    place_instances: bool = Option(
        True, description="Whether instances that should run but are on no host are given one (named, not started)."
    )
    max_migrations: int | None = Option(
        None, ge=0, description="The plan holds at most so many migrations. Left out: as many as it takes."
    )


class Ground(NamedTuple):
    """What one run works on; `host_of` and `used` change."""

    model: ClusterModel
    field: Field
    host_of: Ints
    used: Floats
    movable: Bools
    hosts: Ints
    weight: Floats
    cost: Floats


class Repair:
    """All rules kept, with as few migrations as it takes."""

    name: ClassVar[str] = "repair"
    display_name: ClassVar[str] = "Repair what is against the rules"
    goal: ClassVar[str] = "rules_compliance"
    parameters: ClassVar[type[BaseModel]] = Parameters
    models: ClassVar[tuple[str, ...]] = ("compute",)

    def needs(self, parameters: Parameters) -> Sequence[Need]:  # noqa: ARG002
        """Nothing: rules are about what is allocated."""
        return ()

    def grid(self) -> Sequence[Mapping[str, Any]]:
        """The defaults."""
        return ({},)

    def propose(self, snapshot: Snapshot, parameters: Parameters, context: Context) -> Sequence[Candidate]:
        """One candidate; it has no step when no rule is broken."""
        model = snapshot.model
        before = broken(model)
        failed = np.zeros(model.instances, bool)
        failed[list(snapshot.failed_before)] = True
        ground = survey(model, failed)
        homeless = rows_where((model.host_of < 0) & np.isin(model.state, HOMELESS) & ~model.excluded)
        if before or excess(model, rulebook(model), model.host_of).any():
            for _ in range(ROUNDS):
                if not cure(ground) or context.cancelled():
                    break
        if context.cancelled():
            return ()
        placed = settle(ground, homeless) if parameters.place_instances else homeless[:0]
        return (candidate(ground, before, homeless, placed, parameters, failed),)


def survey(model: ClusterModel, failed: Bools) -> Ground:
    """Limits, needs and rules of a model, nothing moved yet."""
    field = field_of(model, model.capacity, model.demand)
    host_of = np.array(model.host_of, np.int32)
    movable = model.movable & (MIGRATES_LIVE | MIGRATES_COLD)[model.state] & ~failed
    movable[model.host_of >= 0] &= model.up[model.host_of[model.host_of >= 0]]
    return Ground(
        model,
        field,
        host_of,
        used_of(field, host_of),
        np.array(movable),
        np.flatnonzero(model.usable).astype(np.int32),
        scarcity(field, model.usable),
        np.ascontiguousarray(model.need[:, MEMORY]),
    )


def cure(ground: Ground) -> bool:
    """One round over everything that is broken now; whether anything moved."""
    model, start = ground.model, ground.host_of.copy()
    zones = np.where(ground.host_of >= 0, model.zone.codes[ground.host_of], -1)
    strayed = (ground.host_of >= 0) & (model.pinned_zone >= 0) & (zones != model.pinned_zone)
    _shift(ground, rows_where(strayed))
    for group in np.flatnonzero(np.isin(model.group_policy, (GroupPolicy.AFFINITY, GroupPolicy.ANTI_AFFINITY))):
        first, rows = model.group_members
        members = rows[first[group] : first[group + 1]]
        if model.group_policy[group] == GroupPolicy.ANTI_AFFINITY:
            _thin_out(ground, members)
        else:
            _bring_together(ground, members, ground.host_of)
    book = rulebook(model)
    for n in np.flatnonzero(excess(model, book, ground.host_of)).tolist():
        _cure_rule(ground, book.rules[n])
    for n in np.flatnonzero(excess(model, book, ground.host_of)).tolist():
        for instance in wrong_members(model, book.rules[n], ground.host_of).tolist():
            wrong = ground.movable[instance] and not isinstance(book.rules[n], HostLimit | Preserve)
            if wrong and _make_room(ground, instance):
                break
    over = model.up & (ground.used > ground.field.limit + ROUNDING).any(axis=1)
    if over.any():
        hosts = np.flatnonzero(over).astype(np.int32)
        much = (ground.used - ground.field.limit).max(axis=1)
        hosts = hosts[np.argsort(-much[hosts], kind="stable")]
        every = np.ones_like(ground.used, bool)
        stays = unload(
            ground.field,
            ground.host_of,
            ground.used,
            every,
            ground.movable,
            hosts,
            ground.hosts,
            ground.weight,
            ground.cost,
        )
        for host in hosts[stays].tolist():
            guests = np.flatnonzero((ground.host_of == host) & ground.movable)
            for guest in guests[np.argsort(ground.cost[guests], kind="stable")].tolist():
                if (ground.used[host] <= ground.field.limit[host] + ROUNDING).all():
                    break
                _make_room(ground, guest)
    return bool((ground.host_of != start).any())


def settle(ground: Ground, homeless: Ints) -> Ints:
    """Give hosts to instances that have none, the largest first; returns those that got one."""
    if not len(homeless):
        return homeless
    size = ground.field.need[homeless] @ ground.weight
    order = homeless[np.argsort(-size, kind="stable")]
    found = place(ground.field, ground.host_of, ground.used, order, ground.hosts, ground.weight)
    for instance in order[~found].tolist():
        _make_room(ground, instance)
    return order[ground.host_of[order] >= 0]


def candidate(
    ground: Ground, before: Sequence[Violation], homeless: Ints, placed: Ints, parameters: Parameters, failed: Bools
) -> Candidate:
    """Steps, boots and indicators for what has been done to the ground."""
    model = ground.model
    moved = rows_where((ground.host_of != model.host_of) & (model.host_of >= 0))
    most = len(moved) if parameters.max_migrations is None else parameters.max_migrations
    target = ground.host_of.copy()
    ground.host_of[:] = model.host_of
    ground.used[:] = used_of(ground.field, ground.host_of)
    moved, count = in_order(ground.field, ground.host_of, ground.used, moved, target, most)
    if most < len(moved):
        # Boots may have counted on room that the moves left out would make: hosts are found anew.
        moved = moved[:count]
        placed = rows_where(homeless_of(ground, homeless, parameters))
    else:
        ground.host_of[:] = target
    steps = tuple(Migrate(v, int(ground.host_of[v]), bool(MIGRATES_LIVE[model.state[v]])) for v in moved.tolist())
    boots = tuple(Boot(v, int(ground.host_of[v])) for v in np.sort(placed).tolist())
    after = broken(model, host_of=ground.host_of)
    waiting = np.zeros(model.instances, bool)
    waiting[homeless] = parameters.place_instances
    waiting[placed] = False
    starts = np.zeros(model.instances, bool)
    starts[placed] = True
    names = labels(model) if (waiting.any() or starts.any() or failed.any()) else model.instance_names
    concerned = {row for one in before for row in one.members}
    fixed = "moves out of the way, so that a broken rule can be kept"
    notes = [
        *note(starts, names, "{count} instances on no host are to be started where the candidate says"),
        *note(waiting, names, "{count} instances stay on no host: none may take them or has room"),
        *note(failed, names, "{count} instances stay because an earlier migration of theirs failed"),
        *(f"still broken: {one.text}" for one in after[:NAMED]),
        *([f"still broken: {len(after) - NAMED} more"] if len(after) > NAMED else []),
    ]
    return Candidate(
        steps,
        because=f"{len(before)} rules broken before, {len(after)} after, with {len(moved)} migrations"
        f"{f' and {len(boots)} instances placed' if boots else ''}",
        indicators={
            "rules_broken_before": len(before),
            "rules_broken_after": len(after),
            "instance_migrations_count": len(moved),
            "instances_placed_count": len(boots),
        },
        notes=tuple(notes),
        reasons={row: fixed for row in moved.tolist() if row not in concerned},
        boots=boots,
    )


def homeless_of(ground: Ground, homeless: Ints, parameters: Parameters) -> Bools:
    """Those of the homeless that find a host without moving anybody, [V]."""
    found = np.zeros(ground.model.instances, bool)
    if parameters.place_instances:
        size = ground.field.need[homeless] @ ground.weight
        order = homeless[np.argsort(-size, kind="stable")]
        found[order] = place(ground.field, ground.host_of, ground.used, order, ground.hosts, ground.weight)
    return found


def rows_where(mask: Bools) -> Ints:
    """Rows where a mask is true, as compiled code takes them."""
    return np.flatnonzero(mask).astype(np.int32)


def _cure_rule(ground: Ground, rule: Rule) -> None:
    """Move what one broken rule has too many somewhere."""
    if isinstance(rule, Fence | Ban):
        _shift(ground, wrong_members(ground.model, rule, ground.host_of))
    elif isinstance(rule, Spread):
        _thin_out(ground, rule.members)
    elif isinstance(rule, Gather):
        _bring_together(ground, rule.members, ground.host_of)
    elif isinstance(rule, Among | SplitAmong):
        part = np.full(ground.model.hosts + 1, -1, np.int32)
        for number, group in enumerate(rule.host_groups):
            part[group] = number
        for group in [rule.members] if isinstance(rule, Among) else rule.groups:
            _bring_together(ground, group, part[ground.host_of])
        if isinstance(rule, SplitAmong):
            _shift(ground, _in_shared_parts(rule, part[ground.host_of]))
    elif isinstance(rule, Lonely | Split):
        groups = [rule.members] if isinstance(rule, Lonely) else list(rule.groups)
        _separate(ground, rule, groups)
    elif isinstance(rule, HostLimit):
        _lighten(ground, rule)


def _shift(ground: Ground, movers: Ints, most: int = -1, hosts: Ints | None = None) -> int:
    """Move some instances, the cheapest first, by one more move each where it takes that."""
    movers = np.asarray(movers, np.int32)
    movers = movers[np.argsort(ground.cost[movers], kind="stable")]
    to = ground.hosts if hosts is None else hosts
    return int(move(ground.field, ground.host_of, ground.used, ground.movable, movers, most, to, ground.weight))


def _make_room(ground: Ground, instance: int) -> bool:
    ground_ = (ground.field, ground.host_of, ground.used, ground.movable)
    return bool(make_room(*ground_, instance, ground.hosts, ground.weight, ground.cost))


def _thin_out(ground: Ground, members: Ints) -> None:
    """All but one member leave every host."""
    where = ground.host_of[members]
    hosts, count = np.unique(where[where >= 0], return_counts=True)
    for host, many in zip(hosts[count > 1].tolist(), count[count > 1].tolist(), strict=True):
        _shift(ground, members[where == host], many - 1)


def _bring_together(ground: Ground, members: Ints, part: Ints) -> None:
    """The few join the many; those outside every part join as well."""
    members = members[ground.host_of[members] >= 0]
    inside = members[part[members] >= 0]
    if not len(inside):
        _shift(ground, members)
        return
    values, count = np.unique(part[inside], return_counts=True)
    if len(values) > 1 or len(inside) < len(members):
        _shift(ground, members[part[members] != values[np.argmax(count)]])


def _in_shared_parts(rule: SplitAmong, part: Ints) -> Ints:
    """Members of all but the largest group in every part that several groups are in."""
    found = [np.empty(0, np.int32)]
    sizes = [len(group) for group in rule.groups]
    seen: dict[int, int] = {}
    for number in np.argsort(np.negative(sizes), kind="stable").tolist():
        group = rule.groups[number]
        parts = np.unique(part[group][part[group] >= 0]).tolist()
        found += [group[part[group] == there] for there in parts if seen.setdefault(there, number) != number]
    return np.concatenate(found)


def _separate(ground: Ground, rule: Rule, groups: Sequence[Ints]) -> None:
    """On every mixed host the side that is most numerous stays, if the others can go."""
    side = np.full(len(ground.host_of), 0 if isinstance(rule, Lonely) else -1)
    for number, group in enumerate(groups):
        side[group] = number + 1
    where = ground.host_of
    for host in np.unique(where[rule.members][where[rule.members] >= 0]).tolist():
        guests = rows_where((where == host) & (side >= 0))
        sides, count = np.unique(side[guests], return_counts=True)
        if len(sides) < 2:
            continue
        for stays in sides[np.argsort(-count, kind="stable")].tolist():
            go = guests[side[guests] != stays]
            kept = ground.host_of[go].copy()
            if _shift(ground, go) == len(go):
                break
            for guest, home in zip(go.tolist(), kept.tolist(), strict=True):  # all or nobody
                if ground.host_of[guest] != home:
                    put(ground.field, ground.host_of, ground.used, guest, home)


def _lighten(ground: Ground, rule: HostLimit) -> None:
    """Take instances away from a group of hosts until its limit is kept."""
    outside = ground.hosts[~np.isin(ground.hosts, rule.hosts)]
    if isinstance(rule, MaxOnline):
        guests = np.bincount(ground.host_of[ground.host_of >= 0], minlength=ground.model.hosts)
        in_use = rule.hosts[guests[rule.hosts] > 0]
        surplus = len(in_use) - rule.most
        for host in in_use[np.argsort(guests[in_use], kind="stable")].tolist():
            if surplus <= ROUNDING:
                return
            there = rows_where(ground.host_of == host)
            if _shift(ground, there) == len(there):
                surplus -= 1
                continue
            for guest in there[ground.host_of[there] != host].tolist():
                put(ground.field, ground.host_of, ground.used, guest, host)
        return
    inside = rows_where(np.isin(ground.host_of, rule.hosts))
    resource = getattr(rule, "resource", None)
    weight = np.ones(len(inside)) if resource is None else ground.model.need[inside, resource]
    too_much = rule.load(ground.model, ground.host_of) - rule.most
    # The smallest one that cures it alone, else the largest first.
    alone = np.flatnonzero(weight >= too_much - ROUNDING)
    order = [*alone[np.argsort(weight[alone], kind="stable")], *np.argsort(-weight, kind="stable")]
    for k in order:
        if too_much <= ROUNDING:
            return
        if ground.host_of[inside[k]] in rule.hosts and _shift(ground, inside[k : k + 1], 1, outside):
            too_much -= weight[k]
