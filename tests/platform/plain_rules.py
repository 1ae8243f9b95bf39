"""Every rule in plain Python, apart from the code that searches; and random small clusters with random rules.

A state says where every instance is: a set of hosts, empty for one that is nowhere, two for one under way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st

from trimtab.platform import rules as r
from trimtab.platform.model import ClusterModel

State = Sequence[set[int]]


def state_of(host_of: Any) -> list[set[int]]:
    """A placement as a state."""
    return [{int(host)} if host >= 0 else set() for host in host_of]


def hosts_of(state: State, members: Any) -> list[int]:
    return [host for v in members for host in state[v]]


def on(state: State, host: int) -> set[int]:
    return {v for v, where in enumerate(state) if host in where}


def parts_of(state: State, members: Any, groups: Any) -> list[int]:
    return [next((n for n, group in enumerate(groups) if host in group), -1) for host in hosts_of(state, members)]


def minority(values: list[int]) -> int:
    """How many are not where most are; -1 is nowhere good."""
    return len(values) - max((values.count(value) for value in values if value >= 0), default=0)


def shared_parts(state: State, rule: Any) -> int:
    where = [set(parts_of(state, group, rule.host_groups)) for group in rule.groups]
    return sum(sum(n in parts for parts in where) > 1 for n in range(len(rule.host_groups)))


def over(model: ClusterModel, state: State, host: int, resource: int) -> bool:
    return sum(model.need[v, resource] for v in on(state, host)) > model.capacity[host, resource] + 1e-6


DEFINITIONS: Mapping[str, Callable[[ClusterModel, Any, State], float]] = {
    "spread": lambda _, x, s: len(hosts_of(s, x.members)) - len(set(hosts_of(s, x.members))),
    "gather": lambda _, x, s: minority(hosts_of(s, x.members)),
    "fence": lambda _, x, s: sum(h not in x.hosts for h in hosts_of(s, x.members)),
    "ban": lambda _, x, s: sum(h in x.hosts for h in hosts_of(s, x.members)),
    "root": lambda m, x, s: sum(m.host_of[v] >= 0 and s[v] != {m.host_of[v]} for v in x.members),
    "lonely": lambda m, x, s: sum(0 < len(on(s, h) & {*x.members}) < len(on(s, h)) for h in range(m.hosts)),
    "among": lambda _, x, s: minority(parts_of(s, x.members, x.host_groups)),
    "split": lambda m, x, s: sum(sum(bool(on(s, h) & {*g}) for g in x.groups) > 1 for h in range(m.hosts)),
    "split_among": lambda _, x, s: shared_parts(s, x) + sum(minority(parts_of(s, g, x.host_groups)) for g in x.groups),
    "max_online": lambda _, x, s: max(0, sum(bool(on(s, h)) for h in x.hosts) - x.most),
    "running_capacity": lambda _, x, s: max(0, sum(bool(where & {*x.hosts}) for where in s) - x.most),
    "resource_capacity": lambda m, x, s: max(
        0, sum(m.need[v, x.resource] for v, where in enumerate(s) if where & {*x.hosts}) - x.most
    ),
    "preserve": lambda m, x, s: sum(any(over(m, s, h, x.resource) for h in s[v]) for v in x.members),
}


def plain_excess(model: ClusterModel, rule: Any, state: State) -> float:
    """How far a state is from a rule; 0 = kept."""
    found = DEFINITIONS[rule.kind](model, rule, state)
    return found if found > 1e-6 else 0.0


def plain_admits(model: ClusterModel, rule: Any, host_of: Any, instance: int, host: int) -> bool:
    """Whether an instance that goes from where it is to a host is itself not against a rule there, one rule a line."""
    kind, mine, before = rule.kind, instance in rule.members, state_of(host_of)
    after = [*before]
    after[instance] = {host}
    guests = on(before, host) - {instance}
    if kind in {"max_online", "running_capacity", "resource_capacity"}:
        old, new = plain_load(model, rule, before), plain_load(model, rule, after)
        return new <= max(rule.most + 1e-6, old) or not grows(rule, model, before, instance, host)
    if kind == "lonely":
        return not (guests - {*rule.members} if mine else guests & {*rule.members})
    if not mine or kind in {"root", "preserve"}:
        return True
    if kind in {"fence", "ban"}:
        return (host in rule.hosts) == (kind == "fence")
    if kind == "spread":
        return not guests & {*rule.members}
    group = next(g for g in getattr(rule, "groups", [rule.members]) if instance in g)
    if kind == "split":
        return not guests & ({*rule.members} - {*group})
    groups = getattr(rule, "host_groups", [[h] for h in range(model.hosts)])
    target = next((n for n, part in enumerate(groups) if host in part), -1)
    others = [p for p in parts_of(before, [v for v in group if v != instance], groups) if p >= 0]
    home = parts_of(before, [instance], groups)
    many = max((others.count(part) for part in others), default=0)
    here = many if not home else others.count(home[0]) if home[0] >= 0 else 0
    strangers = parts_of(before, {*rule.members} - {*group}, groups)
    return target >= 0 and target not in strangers and (not others or others.count(target) >= max(1, here))


def plain_load(model: ClusterModel, rule: Any, state: State) -> float:
    """What a limit counts."""
    unlimited = type(rule)(
        hosts=rule.hosts, most=0, **({"resource": rule.resource} if hasattr(rule, "resource") else {})
    )
    return DEFINITIONS[rule.kind](model, unlimited, state)


def grows(rule: Any, model: ClusterModel, state: State, instance: int, host: int) -> bool:
    """Whether a limit sees an instance come in that was not among its hosts."""
    if rule.kind == "max_online":
        return True
    return host in rule.hosts and not state[instance] & {*rule.hosts}


@st.composite
def ruled_clouds(draw: st.DrawFn, kinds: Sequence[str] = tuple(DEFINITIONS)) -> ClusterModel:
    """Two to five hosts, one to seven instances, one to four rules, some broken today."""
    count, guests = draw(st.integers(2, 5)), draw(st.integers(1, 7))
    hosts = pa.table(
        {
            "uuid": [f"h{n}" for n in range(count)],
            "hostname": [f"host{n}" for n in range(count)],
            "vcpus": [draw(st.sampled_from([2.0, 4.0, 8.0])) for _ in range(count)],
            "memory_mb": [64.0] * count,
            "disk_gb": [64.0] * count,
        }
    )
    where = st.sampled_from([None, *(f"h{n}" for n in range(count)), *(f"h{n}" for n in range(count))])
    instances = pa.table(
        {
            "uuid": [f"v{n}" for n in range(guests)],
            "name": [f"vm{n}" for n in range(guests)],
            "node": pa.array([draw(where) for _ in range(guests)], pa.string()),
            "vcpus": [draw(st.sampled_from([1.0, 1.0, 2.0])) for _ in range(guests)],
            "memory_mb": [float(draw(st.integers(1, 4))) for _ in range(guests)],
            "disk_gb": [1.0] * guests,
        }
    )
    model = ClusterModel.from_arrow(hosts, instances)
    chosen = draw(st.lists(st.sampled_from(kinds), min_size=1, max_size=4))
    return r.with_rules(model, [draw(rule_of(kind, n, count, guests)) for n, kind in enumerate(chosen)])


@st.composite
def rule_of(draw: st.DrawFn, kind: str, number: int, hosts: int, guests: int) -> r.Rule:
    """A random rule of a kind."""
    some = st.lists(st.integers(0, guests - 1), min_size=1, max_size=5, unique=True)
    places = st.lists(st.integers(0, hosts - 1), min_size=1, max_size=hosts, unique=True)
    given: dict[str, Any] = {"name": f"r{number}", "continuous": draw(st.booleans())}
    if kind in {"spread", "gather", "root", "lonely", "fence", "ban", "among", "preserve"}:
        given["members"] = draw(some)
    if kind in {"fence", "ban", "max_online", "running_capacity", "resource_capacity"}:
        given["hosts"] = draw(places)
    if kind in {"split", "split_among"}:
        given["groups"] = halves(draw(some), draw(st.integers(0, 5)))
    if kind in {"among", "split_among"}:
        given["host_groups"] = halves(draw(places), draw(st.integers(0, 5)))
    if kind in {"max_online", "running_capacity", "resource_capacity"}:
        given["most"] = float(draw(st.integers(0, 4)))
    if kind in {"resource_capacity", "preserve"}:
        given["resource"] = draw(st.sampled_from([0, 1]))
    if kind == "preserve":
        given["least"] = float(draw(st.integers(1, 3)))
    return r.KINDS[kind](**given)


def halves(values: list[int], cut: int) -> list[np.ndarray]:
    """Two groups of some rows."""
    return [np.array(values[:cut], np.int32), np.array(values[cut:], np.int32)]
