"""Plays a candidate step by step against the platform's own rules, and builds random small clusters."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np

from trimtab.platform.model import ClusterModel, InstanceState
from trimtab.platform.proposal import Act, Candidate
from trimtab.platform.rules import destinations, groups_broken, judge

STATES = ("active", "active", "active", "paused", "stopped", "error", "suspended")
POLICIES = ("affinity", "anti-affinity", "soft-affinity", "soft-anti-affinity")


def faults(model: ClusterModel, candidate: Candidate) -> list[str]:
    """Everything that is wrong with a candidate, at any step; empty for a sound one."""
    found = judge(model, candidate)
    placement, receivers, moved = model.placement(), model.usable.copy(), set()
    over = placement.over_capacity()
    broken = groups_broken(model, placement.host_of)
    for number, step in enumerate(candidate.steps):
        if isinstance(step, Act):
            state = step.parameters["state"]
            receivers[step.host] = state == "enabled"
            if state == "disabled" and len(placement.residents(step.host)):
                found.append(f"step {number}: {step.parameters['resource_name']} is disabled with instances on it")
            continue
        instance, host = step.instance, step.destination
        if instance in moved:
            found.append(f"step {number}: instance {instance} moves twice")
        moved.add(instance)
        if not destinations(placement, instance, receivers)[host]:
            found.append(f"step {number}: instance {instance} may not go to host {host}")
        if not model.movable[instance]:
            found.append(f"step {number}: instance {instance} must not move")
        live = model.state[instance] in {InstanceState.ACTIVE, InstanceState.PAUSED}
        if step.live != live or (not live and model.state[instance] != InstanceState.STOPPED):
            found.append(f"step {number}: instance {instance} in state {model.state[instance]} moves live: {step.live}")
        placement.move(instance, host)
        worse = placement.over_capacity() & ~over
        if worse.any():
            found.append(f"step {number}: host {int(np.argmax(worse))} is over its capacity")
        now = groups_broken(model, placement.host_of)
        if (now > broken).any():
            found.append(f"step {number}: a server group is worse than before")
    return found


def random_cluster(scenarios: ModuleType, seed: int, *, crowded: bool) -> tuple[ClusterModel, dict[str, Any]]:
    """A small odd cluster and its measurements: zones, groups, locks, down and disabled hosts, gaps in the metrics."""
    rng = np.random.default_rng(seed)
    hosts, instances = int(rng.integers(1, 9)), int(rng.integers(0, 28))
    sizes = [
        (float(rng.choice([8, 16, 32])), float(rng.choice([0, 200, 400])), float(rng.choice([32, 64])))
        for _ in range(hosts)
    ]
    ratio = rng.choice([1.0, 1.5, 2.0], hosts)
    room = np.array([[v * r, d, m] for (v, d, m), r in zip(sizes, ratio, strict=True)])
    guests: list[tuple[int, float, float, float]] = []
    for _ in range(instances):
        need = np.array([rng.choice([1, 2, 4]), rng.choice([0, 0, 20]), rng.choice([1, 2, 4, 8])], float)
        fit = np.flatnonzero((room >= need).all(axis=1))
        host = int(rng.integers(hosts)) if crowded and rng.random() < 0.2 else int(rng.choice(fit)) if len(fit) else -1
        if host >= 0:
            room[host] -= need
        guests.append((host, *need))
    groups = {f"group_{n}": POLICIES[n] for n in range(len(POLICIES))}
    model = scenarios.cluster(
        sizes,
        guests,
        host_columns={
            "vcpu_ratio": ratio,
            "state": rng.choice(["up", "up", "up", "up", "down"], hosts),
            "status": rng.choice(["enabled", "enabled", "enabled", "disabled"], hosts),
            "disabled_reason": rng.choice(["", "watcher_disabled"], hosts),
            "zone": rng.choice(["east", "west"], hosts),
        },
        instance_columns={
            "state": rng.choice(STATES, instances),
            "locked": rng.random(instances) < 0.05,
            "pinned_zone": rng.choice(["", "", "", "east", "west"], instances),
            "group": rng.choice(["", "", "", *groups], instances),
        },
        groups=groups,
    )
    excluded = rng.random(instances) < 0.05
    cpu = np.where(rng.random(instances) < 0.1, np.nan, rng.uniform(0, 100, instances))
    base = np.array(scenarios.host_cpu(model, np.nan_to_num(cpu, nan=50.0)))
    measured = {
        "instance_cpu_usage": cpu,
        "instance_ram_usage": np.where(rng.random(instances) < 0.1, np.nan, model.demand[:, 1] * rng.random(instances)),
        "host_cpu_usage": np.where(rng.random(hosts) < 0.1, np.nan, base + rng.uniform(0, 3, hosts)),
        "host_ram_usage": np.where(rng.random(hosts) < 0.1, np.nan, rng.uniform(0, 40, hosts) * 1024),
    }
    return model.with_changes(excluded=excluded), measured
