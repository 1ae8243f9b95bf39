"""host_maintenance from the outside: Watcher's scenarios, and what was wrong there."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from trimtab.platform.contracts import Context
from trimtab.platform.errors import InvalidInput, StrategyError
from trimtab.platform.model import ClusterModel, InstanceState
from trimtab.platform.planner import plan_capacity
from trimtab.platform.proposal import Act, Candidate, Limits, Migrate
from trimtab.platform.rules import destinations, judge
from trimtab.platform.schema import read_parameters
from trimtab.platform.snapshot import Snapshot
from trimtab.strategies.library.host_maintenance import HostMaintenance

STRATEGY = HostMaintenance()
SEEDS = some.integers(0, 2**32 - 1)


def propose(model: ClusterModel, host: int = 0, backup: int | None = None, **given: Any) -> Candidate:
    if backup is not None:
        given["backup_node"] = f"hostname_{backup}"
    parameters = read_parameters(STRATEGY, {"maintenance_node": f"hostname_{host}", **given})
    (candidate,) = STRATEGY.propose(Snapshot(model, 0.0), parameters, Context())
    return candidate


def words(candidate: Candidate) -> list[str]:
    """Steps as short words: `5>2` live, `5~2` cold, `5>?` where the cloud chooses, `-3` disabled, `+3`, `stop 5`."""
    found = []
    for step in candidate.steps:
        if isinstance(step, Migrate):
            where = step.destination if step.destination >= 0 else "?"
            found.append(f"{step.instance}{'>' if step.live else '~'}{where}")
        elif step.action_type == "stop":
            assert step.parameters == {}
            found.append(f"stop {str(step.resource_id).removeprefix('INSTANCE_')}")
        else:
            on = step.parameters["state"] == "enabled"
            assert on or step.parameters["disabled_reason"] == "watcher_maintaining"
            assert (step.resource_id, step.parameters["resource_name"]) == (
                f"Node_{step.host}",
                f"hostname_{step.host}",
            )
            found.append(f"{'+' if on else '-'}{step.host}")
    return found


def counts(candidate: Candidate) -> tuple[float, ...]:
    """On the hosts, migrated, stopped, left."""
    return tuple(candidate.indicators.values())


def eight(scenarios: ModuleType) -> ClusterModel:
    """D11: five active and three stopped instances on one of two large hosts."""
    states = {"state": ["active"] * 5 + ["stopped"] * 3}
    return scenarios.cluster([(64, 2000, 131072)] * 2, [(0, 2, 20, 4096)] * 8, instance_columns=states)


def test_a_backup_is_enabled_the_host_disabled_and_its_instance_sent_there(scenarios: ModuleType) -> None:
    """D10, scenario 9, maintenance h2, backup h3; and without a backup."""
    columns = {"status": ["enabled"] * 3 + ["disabled"], "disabled_reason": ["", "", "", "watcher_disabled"]}
    model = scenarios.cluster(
        [(16, 250, 64)] * 4, [(host, 2, 20, 2) for host in (0, 0, 0, 1, 2, 3)], host_columns=columns
    )
    assert words(propose(model, 2, 3)) == ["+3", "-2", "4>3"]
    assert words(propose(model, 2)) == ["-2", "4>?"]
    assert propose(model, 2).planner == "capacity"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, ["-0", "0>?", "1>?"]),
        ({"backup_node": "hostname_1"}, ["-0", "1>1", "0>1"]),
        ({"backup_node": "hostname_1", "disable_live_migration": True}, ["-0", "1~1", "0~1"]),
        (
            {"backup_node": "hostname_1", "disable_live_migration": True, "disable_cold_migration": True},
            ["-0", "stop 0", "stop 1"],
        ),
    ],
)
def test_what_may_not_migrate_live_migrates_cold_or_is_stopped(
    scenarios: ModuleType, given: dict[str, Any], expected: list[str]
) -> None:
    """D10, scenario 1, maintenance h0; the larger instance goes first."""
    assert words(propose(scenarios.scenario_1(), 0, **given)) == expected


@pytest.mark.parametrize(
    ("given", "live", "cold", "stopped"),
    [
        ({}, 5, 3, 0),
        ({"disable_live_migration": True}, 0, 8, 0),
        ({"disable_cold_migration": True}, 5, 0, 0),
        ({"disable_live_migration": True, "disable_cold_migration": True}, 0, 0, 5),
    ],
)
def test_active_and_stopped_instances(
    scenarios: ModuleType, given: dict[str, Any], live: int, cold: int, stopped: int
) -> None:
    """D11: 9, 9, 6 and 6 actions."""
    candidate = propose(eight(scenarios), 0, 1, **given)
    moves = [step for step in candidate.steps if isinstance(step, Migrate)]
    assert (sum(one.live for one in moves), sum(not one.live for one in moves)) == (live, cold)
    assert all(one.destination == 1 for one in moves)
    assert len(candidate.steps) == 1 + live + cold + stopped
    assert counts(candidate) == (8, live + cold, stopped, 8 - live - cold - stopped)


def test_an_empty_host_is_only_disabled_and_one_in_maintenance_left_alone(scenarios: ModuleType) -> None:
    """D10, scenario 11 with one node. Watcher disables again what is in maintenance and empty."""
    assert words(propose(scenarios.cluster([(1, 1, 1)], []))) == ["-0"]
    columns = {"status": ["disabled"], "disabled_reason": ["watcher_maintaining"]}
    done = propose(scenarios.cluster([(1, 1, 1)], [], host_columns=columns))
    assert words(done) == []
    assert done.because == "hostname_0: in maintenance already, and nothing on it can leave"
    other = scenarios.cluster([(1, 1, 1)], [], host_columns={**columns, "disabled_reason": ["watcher_disabled"]})
    assert words(propose(other)) == ["-0"]


def test_a_backup_takes_what_fits_one_by_one(scenarios: ModuleType) -> None:
    """D10, N1 with memory 3: Watcher sends all or nothing to the backup, by sums, and leaves out the disk."""
    model = scenarios.scenario_1()
    small = model.total.copy()
    small[1, 1] = 3
    candidate = propose(model.with_changes(total=small), 0, 1)
    assert words(candidate) == ["-0", "0>1", "1>?"]
    assert candidate.notes == ("1 instances do not fit on a backup: the cloud chooses where they go: vm_1",)
    flat = model.total.copy()
    flat[1, 2] = 25
    assert words(propose(model.with_changes(total=flat), 0, 1)) == ["-0", "0>?", "1>?"]


def test_a_backup_too_small_for_all_takes_one(scenarios: ModuleType) -> None:
    """D11, four vCPUs and 8192 MB: Watcher leaves both to the cloud."""
    model = scenarios.cluster([(4, 100, 8192)] * 2, [(0, 2, 20, 2048), (0, 2, 20, 2048), (1, 2, 20, 2048)])
    candidate = propose(model, 0, 1)
    assert words(candidate) == ["-0", "0>1", "1>?"]
    assert candidate.notes[1].startswith("1 instances find no room on any host as far as the model knows")


def test_without_room_anywhere_the_cloud_is_asked_and_that_is_said(scenarios: ModuleType) -> None:
    """D10, scenario 11 with two nodes."""
    candidate = propose(scenarios.scenario_11_with_2_nodes_2_instances(), 0, 1)
    assert words(candidate) == ["-0", "0>?"]
    assert "find no room on any host" in candidate.notes[1]


def test_several_hosts_and_several_backups(scenarios: ModuleType) -> None:
    """Watcher: one host an audit, one backup."""
    model = scenarios.cluster([(4, 99, 99)] * 4, [(0, 3, 1, 9), (0, 1, 1, 1), (1, 4, 1, 5), (2, 1, 1, 1)])
    candidate = propose(
        model, 0, 2, more_maintenance_nodes=["hostname_1", "hostname_0"], more_backup_nodes=["hostname_3"]
    )
    assert words(candidate) == ["-0", "-1", "0>2", "2>3", "1>?"]
    assert counts(candidate) == (3, 3, 0, 0)


@pytest.mark.parametrize(
    "given",
    [
        {"maintenance_node": "hostname_0", "backup_node": "hostname_0"},
        {"maintenance_node": "a", "more_maintenance_nodes": ["hostname_0"], "more_backup_nodes": ["hostname_0"]},
    ],
)
def test_a_host_is_not_its_own_backup(given: dict[str, Any]) -> None:
    """Watcher plans migrations from the host to itself."""
    with pytest.raises(InvalidInput, match="hostname_0 is to be maintained and cannot be its own backup: name another"):
        read_parameters(STRATEGY, given)


def test_an_unknown_host_is_named(scenarios: ModuleType) -> None:
    """D10 and D11: the audit fails, also when the audit's scope leaves the host out."""
    model = scenarios.scenario_1()
    with pytest.raises(StrategyError, match="maintenance_node: there is no compute node 'hostname_9' in the audit's"):
        propose(model, 9)
    with pytest.raises(StrategyError, match="backup_node: there is no compute node 'hostname_9'"):
        propose(model, 0, 9)
    with pytest.raises(StrategyError, match="'hostname_2'"):
        propose(model.subset(np.arange(5) != 2), 2)


def test_states_that_nova_refuses_stay_and_are_named(scenarios: ModuleType) -> None:
    """Watcher migrates paused, broken and suspended ones cold, which Nova refuses."""
    columns = {"state": ["paused", "error", "suspended", "rescued", "stopped", "active"]}
    model = scenarios.cluster([(40, 99, 99)] * 2, [(0, 1, 1, 1)] * 6, instance_columns=columns)
    candidate = propose(model, 0, 1)
    assert words(candidate) == ["-0", "0>1", "4~1", "5>1"]
    assert candidate.notes == (
        "3 instances stay: in their state they can neither migrate as allowed nor be stopped: vm_1, vm_2, vm_3",
    )
    assert counts(candidate) == (6, 3, 0, 3)
    assert words(propose(model, 0, 1, disable_live_migration=True)) == ["-0", "4~1", "5~1"]


def test_excluded_and_locked_instances_stay_and_are_named(scenarios: ModuleType) -> None:
    """D11, scope excluding vm-1: Watcher migrates it all the same, a known bug; three actions are right."""
    model = scenarios.cluster([(16, 500, 32768)] * 2, [(0, 2, 20, 4096)] * 4)
    model = model.with_changes(excluded=np.arange(4) == 0, locked=np.arange(4) == 3)
    candidate = propose(model, 0, 1)
    assert words(candidate) == ["-0", "1>1", "2>1"]
    assert candidate.notes == ("1 instances stay: locked: vm_3", "1 instances stay: excluded by the scope: vm_0")
    both = propose(model, 0, disable_live_migration=True, disable_cold_migration=True)
    assert words(both) == ["-0", "stop 1", "stop 2"]


def test_no_backup_is_enabled_for_nothing(scenarios: ModuleType) -> None:
    """Watcher enables it even where everything is stopped."""
    model = scenarios.cluster([(9, 9, 9)] * 2, [(0, 1, 1, 1)], host_columns={"status": ["enabled", "disabled"]})
    assert words(propose(model, 0, 1)) == ["+1", "-0", "0>1"]
    both = {"disable_live_migration": True, "disable_cold_migration": True}
    assert words(propose(model, 0, 1, **both)) == ["-0", "stop 0"]
    assert words(propose(model.with_changes(demand=model.demand * 99), 0, 1)) == ["-0", "0>?"]


def test_a_host_that_is_down_is_disabled_and_said_to_be_down(scenarios: ModuleType) -> None:
    """Watcher does not look."""
    model = scenarios.cluster([(9, 9, 9)] * 3, [(0, 1, 1, 1)], host_columns={"state": ["down", "up", "down"]})
    candidate = propose(model, 0, 1)
    assert words(candidate) == ["-0"]
    assert counts(candidate) == (1, 0, 0, 1)
    assert candidate.notes[0].startswith("1 hosts are down: nothing can migrate off them")
    back = model.with_changes(up=np.array([True, True, False]))
    candidate = propose(back, 0, 2)
    assert words(candidate) == ["-0", "0>?"]
    assert candidate.notes[0] == "1 backup hosts are down and take nothing in: hostname_2"


def test_zones_and_server_groups_are_kept_on_the_backup(scenarios: ModuleType) -> None:
    """Watcher looks at neither."""
    model = scenarios.cluster(
        [(9, 9, 9)] * 3,
        [(0, 1, 1, 1), (0, 1, 1, 1), (1, 1, 1, 1), (0, 1, 1, 1)],
        host_columns={"zone": ["east", "east", "west"]},
        instance_columns={"group": ["g", "", "g", ""], "pinned_zone": ["", "west", "", "east"]},
        groups={"g": "anti-affinity"},
    )
    assert words(propose(model, 0, 1)) == ["-0", "3>1", "0>?", "1>?"]


def test_the_plan_enables_then_disables_then_migrates(scenarios: ModuleType) -> None:
    """The order Watcher's weight planner gives; the host is closed before it is emptied."""
    model = scenarios.cluster(
        [(9, 9, 9)] * 2, [(0, 1, 1, 1), (0, 1, 1, 1)], host_columns={"status": ["enabled", "disabled"]}
    )
    made = plan_capacity(model, propose(model, 0, 1), Limits())
    parents = {(action.action_type, action.host, action.instance): action.parents for action in made.actions}
    enable, disable = (next(n for n, a in enumerate(made.actions) if a.host == host) for host in (1, 0))
    assert parents["migrate", -1, 0] == parents["migrate", -1, 1] == tuple(sorted((enable, disable)))


@settings(max_examples=100, deadline=None)
@given(seed=SEEDS, live=some.booleans(), cold=some.booleans())
def test_backups_are_never_overfilled_and_everything_is_accounted_for(
    scenarios: ModuleType, replay: ModuleType, seed: int, live: bool, cold: bool
) -> None:
    model, _ = replay.random_cluster(scenarios, seed, crowded=bool(seed % 2))
    rng = np.random.default_rng(seed)
    host, *backups = rng.permutation(model.hosts).tolist()
    given: dict[str, Any] = {"disable_live_migration": live, "disable_cold_migration": cold}
    given["more_backup_nodes"] = [f"hostname_{one}" for one in backups[:2]]
    candidate = propose(model, host, **given)
    assert candidate == propose(model, host, **given)
    assert judge(model, candidate) == []
    placement, receivers = model.placement(), model.usable.copy()
    gone = set()
    for step in candidate.steps:
        if isinstance(step, Act):
            if step.action_type == "stop":
                gone.add(int(model.instance_rows([str(step.resource_id)])[0]))
            else:
                receivers[step.host] = step.parameters["state"] == "enabled"
            continue
        assert model.host_of[step.instance] == host
        assert model.movable[step.instance]
        assert step.instance not in gone
        gone.add(step.instance)
        if step.destination >= 0:
            assert step.destination in backups[:2]
            assert destinations(placement, step.instance, receivers)[step.destination]
            placement.move(step.instance, step.destination)
        allowed = {InstanceState.ACTIVE, InstanceState.PAUSED if step.live else InstanceState.STOPPED}
        assert model.state[step.instance] in allowed
    there, migrated, stopped, left = counts(candidate)
    assert there == (model.host_of == host).sum() == migrated + stopped + left
    assert len(gone) == migrated + stopped
