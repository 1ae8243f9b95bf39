"""node_resource_consolidation from the outside: Watcher's scenario 10, and what was wrong there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import ModuleType

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as some

from trimtab.platform.contracts import Context
from trimtab.platform.model import ClusterModel
from trimtab.platform.planner import PLANNERS
from trimtab.platform.proposal import Candidate, Limits, Migrate
from trimtab.platform.rules import judge
from trimtab.platform.schema import read_parameters
from trimtab.platform.snapshot import Snapshot
from trimtab.strategies.library.node_resource_consolidation import NodeResourceConsolidation

STRATEGY = NodeResourceConsolidation()
SEEDS = some.integers(0, 2**32 - 1)


def propose(model: ClusterModel, choice: str = "specify", failed: Sequence[int] = ()) -> Candidate:
    snapshot = replace(Snapshot(model, 0.0), failed_before=tuple(failed))
    (candidate,) = STRATEGY.propose(snapshot, read_parameters(STRATEGY, {"host_choice": choice}), Context())
    return candidate


def words(candidate: Candidate) -> list[str]:
    """Steps as short words: `5>2` a live migration, `5~2` a cold one, `-3` a host disabled, `+3` one enabled."""
    found = []
    for step in candidate.steps:
        if isinstance(step, Migrate):
            found.append(
                f"{step.instance}{'>' if step.live else '~'}{step.destination if step.destination >= 0 else '?'}"
            )
            continue
        assert step.action_type == "change_nova_service_state"
        assert step.resource_id == f"Node_{step.host}"
        on = step.parameters["state"] == "enabled"
        assert on or step.parameters["disabled_reason"] == "Watcher node resource consolidation strategy"
        found.append(f"{'+' if on else '-'}{step.host}")
    return found


def counts(candidate: Candidate) -> tuple[float, ...]:
    names = ("compute_nodes", "released_compute_nodes", "instance_migrations")
    return tuple(candidate.indicators[f"{name}_count"] for name in names)


def test_specify_names_the_receivers(scenarios: ModuleType) -> None:
    """D12, execute specify ONESHOT: sources h3, h4, h7, destinations h2, h0, h1."""
    candidate = propose(scenarios.scenario_10())
    assert words(candidate) == ["6>2", "7>0", "8>1"]
    assert counts(candidate) == (8, 3, 3)
    assert candidate.planner == "capacity"


def test_auto_leaves_the_choice_to_the_cloud_and_keeps_drained_hosts_closed(scenarios: ModuleType) -> None:
    """D12, execute auto ONESHOT: Watcher enables h3 and h4 again in the end, so that nothing is released."""
    model = scenarios.scenario_10()
    candidate = propose(model, "auto")
    assert words(candidate) == ["-5", "-3", "-4", "6>?", "7>?", "8>?", "+5", "+3", "+4", "-3", "-4"]
    assert counts(candidate) == (8, 3, 3)


def test_what_the_cloud_places_waits_until_every_host_that_is_to_be_empty_is_closed(scenarios: ModuleType) -> None:
    """And each is enabled again after the last migration, disabled to stay so after that."""
    model = scenarios.scenario_10()
    candidate = propose(model, "auto")
    actions = PLANNERS[candidate.planner](model, candidate, Limits()).actions
    moves = [n for n, action in enumerate(actions) if action.instance >= 0]
    for n in moves:
        closing = {actions[parent].host for parent in actions[n].parents if actions[parent].host >= 0}
        assert closing == {3, 4, 5}
    for host, states in ((5, ["disabled", "enabled"]), (3, ["disabled", "enabled", "disabled"])):
        of_host = [n for n, action in enumerate(actions) if action.host == host]
        assert [actions[n].parameters["state"] for n in of_host] == states
        assert set(moves) <= set(actions[of_host[1]].parents)
        assert len(of_host) == 2 or of_host[1] in actions[of_host[2]].parents


def test_a_host_whose_migration_failed_before_only_receives(scenarios: ModuleType) -> None:
    """D12, CONTINUOUS with a failed migration of I6: sources h4, h7; and h1, which Watcher keeps for one of them."""
    candidate = propose(scenarios.scenario_10(), "auto", failed=[6])
    assert words(candidate) == ["-5", "-4", "-1", "7>?", "8>?", "2>?", "+5", "+4", "+1", "-4", "-1"]
    assert counts(candidate) == (8, 3, 3)
    assert "hostname_3" in candidate.notes[0]


def test_the_largest_goes_first_to_the_host_with_the_least_left(scenarios: ModuleType) -> None:
    """D12, specify from h0: I1 (15) to h1, I0 (10) to h2."""
    model = scenarios.scenario_10()
    only = np.isin(np.arange(9), [0, 1])
    candidate = propose(model.with_changes(locked=~only))
    assert words(candidate) == ["1>1", "0>2"]


def test_what_finds_no_room_as_a_whole_does_not_move(scenarios: ModuleType) -> None:
    """D12, specify h1 to h2 only: 14 on 10 free. Watcher moves what fits and counts the host as released."""
    model = scenarios.cluster([(40, 99, 99)] * 2, [(0, 14, 1, 1), (0, 2, 1, 1), (1, 30, 1, 1)])
    candidate = propose(model)
    assert words(candidate) == []
    assert counts(candidate) == (2, 0, 0)


def test_no_second_instance_is_skipped(scenarios: ModuleType) -> None:
    """Watcher changes a list while it walks over it and so looks at every second instance only."""
    model = scenarios.cluster([(40, 99, 99)] * 2, [*[(0, 1, 1, 1)] * 6, (1, 30, 1, 1)])
    assert words(propose(model)) == [f"{n}>1" for n in range(6)]


def test_one_host_takes_the_instances_of_several(scenarios: ModuleType) -> None:
    """Watcher: one source a destination."""
    model = scenarios.cluster([(40, 99, 99)] * 4, [(0, 20, 1, 1), (1, 4, 1, 1), (2, 3, 1, 1), (3, 2, 1, 1)])
    assert words(propose(model)) == ["3>0", "2>0", "1>0"]


def test_hosts_that_are_down_take_no_part(scenarios: ModuleType) -> None:
    """Watcher does not look at the state."""
    columns = {"state": ["down", "up", "down"]}
    model = scenarios.cluster([(9, 9, 9)] * 3, [(0, 1, 1, 1), (1, 2, 1, 1)], host_columns=columns)
    assert words(propose(model)) == words(propose(model, "auto")) == []


def test_states_decide_how_and_whether_instances_move(scenarios: ModuleType) -> None:
    """Watcher migrates all of them live."""
    guests = [(0, 9, 1, 1), (1, 1, 1, 1), (1, 1, 1, 1), (1, 1, 1, 1)]
    for last, expected in (("paused", ["1>0", "2~0", "3>0"]), ("error", [])):
        columns = {"state": ["active", "active", "stopped", last]}
        model = scenarios.cluster([(40, 99, 99)] * 2, guests, instance_columns=columns)
        model = model.with_changes(locked=np.arange(4) == 0)
        assert words(propose(model)) == expected


def test_excluded_and_locked_instances_keep_their_host(scenarios: ModuleType) -> None:
    """Watcher moves what the audit's scope excludes."""
    model = scenarios.cluster([(40, 99, 99)] * 2, [(0, 9, 1, 1), (1, 1, 1, 1)])
    assert words(propose(model)) == ["1>0"]
    for column in ("locked", "excluded"):
        assert words(propose(model.with_changes(**{column: np.array([False, True])}))) == ["0>1"]
        assert words(propose(model.with_changes(**{column: np.array([True, True])}))) == []


def test_disk_counts(scenarios: ModuleType) -> None:
    """Watcher looks at vCPUs and memory only."""
    assert words(propose(scenarios.cluster([(40, 9, 99)] * 2, [(0, 9, 8, 1), (1, 1, 2, 1)]))) == []


@settings(max_examples=80, deadline=None)
@given(seed=SEEDS, crowded=some.booleans())
def test_released_hosts_are_empty_and_no_rule_is_broken(
    scenarios: ModuleType, replay: ModuleType, seed: int, crowded: bool
) -> None:
    model, _ = replay.random_cluster(scenarios, seed, crowded=crowded)
    named, left_open = propose(model), propose(model, "auto")
    assert replay.faults(model, named) == []
    final = named.final_host_of(model)
    left = np.bincount(final[final >= 0], minlength=model.hosts)
    sources = np.unique(model.host_of[named.moves()[:, 0]])
    assert (left[sources] == 0).all()
    assert counts(named) == counts(left_open) == (model.hosts, len(sources), len(named.moves()))
    assert left_open.moves()[:, 0].tolist() == named.moves()[:, 0].tolist()
    assert (left_open.moves()[:, 1] == -1).all()
    assert judge(model, left_open) == []
