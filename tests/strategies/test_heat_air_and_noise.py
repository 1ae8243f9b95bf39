"""outlet_temperature, uniform_airflow and noisy_neighbor: Watcher's scenarios, and what was wrong there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from trimtab.platform.contracts import Context, Strategy
from trimtab.platform.model import ClusterModel
from trimtab.platform.model.compute import Floats
from trimtab.platform.planner import plan_capacity
from trimtab.platform.proposal import Candidate, Limits, Migrate
from trimtab.platform.schema import read_parameters
from trimtab.platform.snapshot import Need, Snapshot
from trimtab.strategies.library.noisy_neighbor import NoisyNeighbor, priorities
from trimtab.strategies.library.outlet_temperature import OutletTemperature
from trimtab.strategies.library.uniform_airflow import UniformAirflow

HEAT, AIR, NOISE = OutletTemperature(), UniformAirflow(), NoisyNeighbor()
SEEDS = some.integers(0, 2**32 - 1)
NOW, BEFORE = [35.0, 30, 40, 35], [34.5, 30.5, 60, 22.5]  # table C1: L3 occupancy over one and over two periods


def propose(
    strategy: Strategy, model: ClusterModel, values: Sequence[Sequence[float] | Floats], **given: float | int
) -> Candidate:
    """Values are those of the strategy's needs, in their order."""
    parameters = read_parameters(strategy, given)
    needs = strategy.needs(parameters)
    measured = {need: np.array(one, float) for need, one in zip(needs, values, strict=False)}
    (candidate,) = strategy.propose(Snapshot(model, 0.0, measured=measured), parameters, Context())
    return candidate


def words(candidate: Candidate) -> list[str]:
    """Migrations as short words: `5>2` live, `5~2` cold."""
    found = []
    for step in candidate.steps:
        assert isinstance(step, Migrate)
        found.append(f"{step.instance}{'>' if step.live else '~'}{step.destination}")
    return found


# -- outlet_temperature ----------------------------------------------------------------------------------------


def test_heat_the_hot_host_gives_to_the_cool_one(scenarios: ModuleType) -> None:
    """D5, threshold 34.3; Watcher's action names the hosts by uuid, which Nova does not know."""
    model = scenarios.scenario_3_with_2_nodes()
    candidate = propose(HEAT, model, [[30, 100], [0, 0]], threshold=34.3)
    assert words(candidate) == ["1>0"]
    assert candidate.indicators == {"hot_hosts_count": 1, "instance_migrations_count": 1}
    (action,) = plan_capacity(model, candidate, Limits()).actions
    assert (action.parameters["source_node"], action.parameters["destination_node"]) == ("hostname_1", "hostname_0")


def test_heat_needs_are_watchers_and_the_load_of_instances() -> None:
    assert HEAT.needs(read_parameters(HEAT, {})) == (
        Need("host_outlet_temp", "host", "mean", 30, 300),
        Need("instance_cpu_usage", "instance", "mean", 300, 300),
    )


def test_heat_the_busiest_instance_goes(scenarios: ModuleType) -> None:
    """Watcher takes the first; what is not measured counts as idle, the larger of equals goes."""
    model = scenarios.cluster([(40, 99, 99)] * 2, [(0, 8, 1, 1), (0, 2, 1, 1), (0, 4, 1, 1)])
    assert words(propose(HEAT, model, [[50, 20], [10, 90, 20]])) == ["1>1"]
    assert words(propose(HEAT, model, [[50, 20], [10, np.nan, 20]])) == ["0>1"]
    assert words(propose(HEAT, model, [[50, 20]])) == ["0>1"]


def test_heat_several_moves_on_request_take_turns(scenarios: ModuleType) -> None:
    """Watcher: one an audit. The hottest begins; receivers take turns, the coolest first."""
    model = scenarios.cluster([(40, 99, 99)] * 4, [(0, 1, 1, 1), (0, 1, 1, 1), (1, 1, 1, 1), (1, 1, 1, 1)])
    values = [[40, 50, 30, 20], [9, 8, 7, 6]]
    assert words(propose(HEAT, model, values)) == ["2>3"]
    assert words(propose(HEAT, model, values, max_migrations=9)) == ["2>3", "0>2", "3>3", "1>2"]
    assert words(propose(HEAT, model, values, max_migrations=0)) == []


def test_heat_who_finds_no_room_is_passed_over(scenarios: ModuleType) -> None:
    """Watcher gives up with its first instance."""
    model = scenarios.cluster([(9, 99, 99), (4, 99, 99)], [(0, 8, 1, 1), (0, 1, 1, 1)])
    assert words(propose(HEAT, model, [[50, 20], [90, 10]])) == ["1>1"]


def test_heat_without_data_a_host_takes_no_part(scenarios: ModuleType) -> None:
    model = scenarios.cluster([(9, 99, 99)] * 3, [(0, 1, 1, 1), (1, 1, 1, 1)])
    candidate = propose(HEAT, model, [[np.nan, 50, np.nan], [5, 5]])
    assert words(candidate) == []
    assert candidate.notes == ("2 hosts without outlet temperature neither give nor receive: hostname_0, hostname_2",)


# -- uniform_airflow -------------------------------------------------------------------------------------------


def test_air_needs_are_those_of_hosts() -> None:
    """Watcher asks for inlet temperature and power of an instance, finds nothing and fails."""
    assert [(need.metric, need.kind) for need in AIR.needs(read_parameters(AIR, {}))] == [
        ("host_airflow", "host"),
        ("host_inlet_temp", "host"),
        ("host_power", "host"),
    ]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, ["1>1", "0>1"]),  # low power, cool inlet: all leave, those with most vCPUs first
        ({"threshold_inlet_t": 25.0}, ["1>1", "0>1"]),
        ({"threshold_inlet_t": 22.0}, ["1>1"]),  # the inlet is warm: one leaves
        ({"threshold_airflow": 401.0}, []),
        ({"threshold_power": 260.0}, ["1>1"]),
        ({"max_migrations": 1}, ["1>1"]),
    ],
)
def test_air_one_instance_leaves_or_all(scenarios: ModuleType, given: dict[str, float], expected: list[str]) -> None:
    """D6, scenario 7."""
    candidate = propose(AIR, scenarios.scenario_7_with_2_nodes(), [[400, 100], [24, 26], [260, 240]], **given)
    assert words(candidate) == expected


def test_air_missing_inlet_or_power_is_not_taken_for_a_fault(scenarios: ModuleType) -> None:
    """Watcher compares None with a number and fails."""
    model = scenarios.scenario_7_with_2_nodes()
    for inlet, power in ((np.nan, 260.0), (24.0, np.nan)):
        candidate = propose(AIR, model, [[400, 100], [inlet, 26], [power, 240]])
        assert words(candidate) == ["1>1"]
        assert candidate.notes == ("1 hosts without inlet temperature or power are not taken for faulty: hostname_0",)
    assert words(propose(AIR, model, [[np.nan, 100], [24, 26], [260, 240]])) == []


def test_air_states_decide_how_and_whether_instances_leave(scenarios: ModuleType) -> None:
    """Watcher migrates stopped, broken and excluded ones live."""
    columns = {"state": ["active", "stopped", "error", "paused", "active"]}
    model = scenarios.cluster([(9, 99, 99)] * 2, [(0, n, 1, 1) for n in (1, 2, 1, 1, 1)], instance_columns=columns)
    model = model.with_changes(excluded=np.arange(5) == 4)
    candidate = propose(AIR, model, [[400, 100], [20, 20], [200, 200]])
    assert words(candidate) == ["1~1", "0>1", "3>1"]
    assert candidate.notes[-1].startswith("2 instances of faulty hosts stay")


def test_air_ratios_count_and_what_fits_goes(scenarios: ModuleType) -> None:
    """Watcher leaves out the ratios, and moves nothing unless all finds room."""
    model = scenarios.cluster(
        [(8, 99, 99), (4, 99, 99)],
        [(0, 4, 1, 1), (0, 4, 1, 1), (0, 1, 1, 1)],
        host_columns={"vcpu_ratio": [2.0, 1.25]},
    )
    candidate = propose(AIR, model, [[400, 100], [20, 20], [200, 200]])
    assert words(candidate) == ["0>1", "2>1"]
    assert "1 instances of faulty hosts stay" in candidate.notes[-1]


def test_air_one_host_gives_unless_more_is_asked_for(scenarios: ModuleType) -> None:
    """The one that blows hardest; when nothing of it finds room, the next one."""
    model = scenarios.cluster([(9, 99, 99)] * 3, [(0, 1, 1, 1), (0, 2, 1, 1), (1, 3, 1, 1), (1, 1, 1, 1)])
    values = [[500, 600, 100], [50, 50, 50], [900, 900, 900]]
    assert words(propose(AIR, model, values)) == ["2>2"]
    assert words(propose(AIR, model, values, max_migrations=3)) == ["2>2", "1>2", "3>2"]
    stuck = model.with_changes(locked=np.array([False, False, True, True]))
    assert words(propose(AIR, stuck, values)) == ["1>2"]


# -- noisy_neighbor --------------------------------------------------------------------------------------------


def test_noise_leaves_who_suffers(scenarios: ModuleType) -> None:
    """D7: with real measurements Watcher's call fails and finds nothing."""
    model = scenarios.scenario_7_with_2_nodes()
    candidate = propose(NOISE, model, [NOW, BEFORE])
    assert words(candidate) == ["3>0"]
    assert candidate.indicators == {"affected_hosts_count": 1, "instance_migrations_count": 1}
    (action,) = plan_capacity(model, candidate, Limits()).actions
    assert (action.parameters["source_node"], action.parameters["destination_node"]) == ("hostname_1", "hostname_0")
    assert words(propose(NOISE, model, [NOW, BEFORE], cache_threshold=55.0)) == []


def test_noise_needs_are_one_period_and_two() -> None:
    assert NOISE.needs(read_parameters(NOISE, {})) == (
        Need("instance_l3_cache_usage", "instance", "mean", 100, 300),
        Need("instance_l3_cache_usage", "instance", "mean", 200, 300),
    )


def test_noise_priorities_are_numbers_and_five_when_there_is_none(scenarios: ModuleType) -> None:
    """Watcher compares texts, so that "10" comes before "9", and fails where a key is missing."""
    said = ['{"watcher-priority": "10"}', '{"watcher-priority": 9}', "{}", "", '{"watcher-priority": "high"}']
    said += ['{"watcher-priority": null}', '{"watcher-priority": "NaN"}', '{"x": "watcher-priority"}']
    model = scenarios.cluster([(99, 99, 99)], [(0, 1, 1, 1)] * 8, instance_columns={"metadata": said})
    assert priorities(model, np.arange(8)).tolist() == [10, 9, 5, 5, 5, 5, 5, 5]
    texts = {"metadata": ['{"watcher-priority": "9"}', '{"watcher-priority": "10"}']}
    two = scenarios.cluster([(9, 99, 99)] * 2, [(0, 1, 1, 1), (0, 1, 1, 1)], instance_columns=texts)
    assert words(propose(NOISE, two, [[10, 90], [50, 50]])) == ["1>1"]
    assert words(propose(NOISE, two, [[90, 10], [50, 50]])) == []  # nobody less important is louder


def test_noise_several_hosts_are_served_on_request(scenarios: ModuleType) -> None:
    """Watcher fails to compare two affected hosts, and moves one instance an audit."""
    texts = {"metadata": [f'{{"watcher-priority": {n}}}' for n in (3, 4, 1, 8, 9)]}
    model = scenarios.cluster([(9, 99, 99)] * 4, [(host, 1, 1, 1) for host in (0, 0, 1, 1, 1)], instance_columns=texts)
    values = [[10, 90, 10, 80, 90], [50] * 5]
    assert words(propose(NOISE, model, values)) == ["4>2"]
    assert words(propose(NOISE, model, values, max_migrations=2)) == ["4>2", "1>3"]
    assert words(propose(NOISE, model, values, max_migrations=9)) == ["4>2", "1>3", "3>2"]


def test_noise_goes_where_the_cache_is_least_used_and_nobody_suffers(scenarios: ModuleType) -> None:
    """Watcher: the first host of the model, up or down."""
    guests = [(0, 1, 1, 1), (0, 1, 1, 1), (1, 1, 1, 1), (2, 1, 1, 1)]
    columns = {"state": ["up", "up", "up", "down", "up"], "status": ["enabled"] * 4 + ["disabled"]}
    model = scenarios.cluster([(9, 99, 99)] * 5, guests, host_columns=columns)
    assert words(propose(NOISE, model, [[10, 90, 60, 40], [50, 50, 60, 40]])) == ["1>2"]


def test_noise_that_cannot_move_is_named_and_the_next_goes(scenarios: ModuleType) -> None:
    """Watcher moves what is excluded, locked or stopped."""
    model = scenarios.cluster([(9, 99, 99)] * 2, [(0, 1, 1, 1)] * 3)
    values = [[10, 90, 90], [50, 50, 50]]
    assert words(propose(NOISE, model, values)) == ["2>1"]
    assert words(propose(NOISE, model.with_changes(excluded=np.arange(3) == 2), values)) == ["1>1"]
    quiet = propose(NOISE, model.with_changes(locked=np.arange(3) > 0), values)
    assert words(quiet) == []
    assert quiet.notes[0].startswith("1 hosts keep their noise")


def test_noise_without_measurement_is_none(scenarios: ModuleType) -> None:
    candidate = propose(NOISE, scenarios.scenario_7_with_2_nodes(), [[np.nan, 30, 40, np.nan], BEFORE])
    assert words(candidate) == []
    assert candidate.notes[0].startswith("2 instances without cache measurement")


# -- all three -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", [HEAT, AIR, NOISE])
def test_small_and_empty_clouds_give_empty_plans(scenarios: ModuleType, strategy: Strategy) -> None:
    """D5 to D7, scenario 4; and D7, scenario_3_with_2_nodes."""
    for model in (
        scenarios.cluster([], []),
        scenarios.cluster([(1, 1, 1)], []),
        scenarios.cluster([], [(-1, 1, 1, 1)]),
    ):
        assert words(propose(strategy, model, [])) == []
    assert words(propose(strategy, scenarios.scenario_3_with_2_nodes(), [])) == []


@settings(max_examples=100, deadline=None)
@given(seed=SEEDS, most=some.sampled_from([None, 1, 6]), strategy=some.sampled_from([HEAT, AIR, NOISE]))
def test_never_breaks_a_rule_at_any_step(
    scenarios: ModuleType, replay: ModuleType, seed: int, most: int | None, strategy: Strategy
) -> None:
    model, _ = replay.random_cluster(scenarios, seed, crowded=bool(seed % 2))
    rng = np.random.default_rng(seed)
    scale: Mapping[str, tuple[float, float]] = {
        "host_outlet_temp": (20, 50),
        "host_airflow": (200, 600),
        "host_inlet_temp": (20, 35),
        "host_power": (200, 500),
    }
    values = []
    for need in strategy.needs(read_parameters(strategy, {})):
        count = model.hosts if need.kind == "host" else model.instances
        one = rng.uniform(*scale.get(need.metric, (0, 100)), count)
        values.append(np.where(rng.random(count) < 0.1, np.nan, one))
    given = {} if most is None else {"max_migrations": most}
    candidate = propose(strategy, model, values, **given)
    assert candidate == propose(strategy, model, values, **given)
    assert replay.faults(model, candidate) == []
    assert candidate.indicators["instance_migrations_count"] == len(candidate.steps)
    assert most is None or len(candidate.steps) <= most
