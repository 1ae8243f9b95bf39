"""The compiled engine against plain Python, bit for bit, on small random clouds."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trimtab.simulator.planetlab.engine import Tick, simulate
from trimtab.simulator.planetlab.fleet import Fleet, build_fleet
from trimtab.simulator.planetlab.plain import PlainRun
from trimtab.simulator.planetlab.rules import REFERENCE, SOUND, Policy, Rules, every_policy

NAMES = [policy.name for policy in every_policy()]
RULES = [field.name for field in fields(Rules)]


def random_fleet(seed: int, hosts: int = 20, vms: int = 30, samples: int = 16) -> Fleet:
    """Bursts, idle times and steady load: enough for overload, emptied hosts and regressions that are singular."""
    rng = np.random.default_rng(seed)
    level = rng.choice([0.0, 3.0, 20.0, 60.0, 97.0], (samples, vms), p=[0.2, 0.2, 0.2, 0.2, 0.2])
    steady = rng.random(vms) < 0.3
    level[:, steady] = level[0, steady]
    noise = rng.integers(-3, 4, (samples, vms)) * ~steady
    return build_fleet(np.clip(level + noise, 0, 100).T, hosts)


def same(fleet: Fleet, policy: Policy, rules: Rules, seed: int) -> None:
    """Both engines, every move and every figure."""
    ticks: list[Tick] = []
    run = simulate(fleet, policy, rules, seed, lambda tick, _: ticks.append(tick))
    plain = PlainRun(fleet, policy, rules, seed)
    figures = plain.play()
    assert [list(zip(tick.movers, tick.targets, strict=True)) for tick in ticks] == plain.moves
    assert run.figures == figures
    assert run.home.tolist() == [-1 if vm.home is None else vm.home.row for vm in plain.vms]
    if policy.name != "NPA":
        assert run.energy_j.tolist() == [host.energy for host in plain.hosts]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("rules", [REFERENCE, SOUND], ids=["reference", "sound"])
def test_compiled_and_plain_agree_for_every_policy(name: str, rules: Rules) -> None:
    same(random_fleet(len(name)), Policy.named(name), rules, 5)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(NAMES[2:]), st.sets(st.sampled_from(RULES)), st.integers(0, 10_000))
def test_compiled_and_plain_agree_whatever_rules_are_switched(name: str, switched: set[str], seed: int) -> None:
    rules = replace(REFERENCE, **{rule: not getattr(REFERENCE, rule) for rule in switched})
    same(random_fleet(seed, samples=14), Policy.named(name), rules, seed)


def test_a_long_history_is_cut_to_thirty_samples_alike() -> None:
    for name in ("IQR-MC", "MAD-MMT", "LRR-MU"):
        same(random_fleet(7, hosts=12, vms=16, samples=48), Policy.named(name), REFERENCE, 1)
