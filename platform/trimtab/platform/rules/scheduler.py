"""The cloud's own scheduler knows none of these rules: whose moves must therefore name their destination."""

from __future__ import annotations

import numpy as np

from trimtab.platform.model import ClusterModel
from trimtab.platform.model.compute import Bools, Ints
from trimtab.platform.rules.book import Rulebook, rulebook
from trimtab.platform.rules.kinds import HostLimit, Lonely, MaxOnline, Preserve, ResourceCapacity, Rule


def bound_by_rules(model: ClusterModel) -> Bools:
    """Instances that must not be moved to wherever the cloud's scheduler likes (destination -1), [V].

    The scheduler knows capacity, zones, server groups, and what flavors and images ask of traits and aggregates. It
    knows no rule of an operator, an audit or a tenant's metadata, so it may break any that could be broken by the
    instance arriving somewhere: one it is a member of; a `lonely` one of others, whose hosts it must keep out of; a
    `preserve` one of others, whose room it may take; a limit of hosts it would add to. Whether the rules are continuous
    makes no difference.
    """
    return model.derived("bound by rules", _first) >= 0


def binding_rule(model: ClusterModel, instance: int) -> Rule | None:
    """A rule because of which an instance must not be left to the cloud's scheduler; None when there is none."""
    first = int(model.derived("bound by rules", _first)[instance])
    return rulebook(model).rules[first] if first >= 0 else None


def left_to_chance(model: ClusterModel, instance: int) -> list[str]:
    """Why an instance must not be left to the cloud's scheduler; empty when it may."""
    rule = binding_rule(model, instance)
    if rule is None:
        return []
    name = model.instance_name(instance) or model.instance_id(instance)
    return [f"instance {name} needs a named destination: the cloud's own choice does not know rule {rule.label}"]


def _first(model: ClusterModel) -> Ints:
    """Position of a rule that binds each instance, its own rather than that of others; -1 = none. [V]."""
    book: Rulebook = rulebook(model)
    own, others = np.full(model.instances, -1, np.int32), np.full(model.instances, -1, np.int32)
    for n in range(len(book.rules) - 1, -1, -1):
        rule = book.rules[n]
        others[_strangers(model, rule)] = n
        if not isinstance(rule, Preserve):
            own[rule.members] = n
    return np.where(own >= 0, own, others).astype(np.int32)


def _strangers(model: ClusterModel, rule: Rule) -> Bools:
    """Instances that may break a rule by arriving somewhere though they are no members of it, [V]."""
    every = np.ones(model.instances, bool)
    if isinstance(rule, Lonely):
        return every if rule.beyond or len(rule.members) else ~every
    if isinstance(rule, Preserve):
        raised = rule.beyond or bool((model.demand[rule.members, rule.resource] < rule.least).any())
        return model.need[:, rule.resource] > 0 if raised else ~every
    if not isinstance(rule, HostLimit) or not (rule.beyond or len(rule.hosts)):
        return ~every
    if isinstance(rule, MaxOnline):
        return every  # even one that is on the hosts may open another of them
    inside = np.zeros(model.hosts + 1, bool)  # one more for -1
    inside[rule.hosts] = True
    adds = model.need[:, rule.resource] > 0 if isinstance(rule, ResourceCapacity) else every
    return adds & ~inside[model.host_of]
