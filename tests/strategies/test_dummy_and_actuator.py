"""The strategies that look at nothing."""

from types import ModuleType

from trimtab.platform.contracts import Context
from trimtab.platform.proposal import Act
from trimtab.platform.schema import read_parameters
from trimtab.strategies.library.actuator import Actuator
from trimtab.strategies.library.dummy import Dummy


def test_dummy_says_hello_says_para2_and_sleeps_para1(scenarios: ModuleType) -> None:
    strategy = Dummy()
    given = {"para1": 4.0, "para2": "Hi"}
    snapshot = scenarios.snapshot(strategy, scenarios.scenario_1(), given)
    (candidate,) = strategy.propose(snapshot, read_parameters(strategy, given), Context())
    assert candidate.steps == (
        Act("nop", None, {"message": "hello World"}),
        Act("nop", None, {"message": "Hi"}),
        Act("sleep", None, {"duration": 4.0}),
    )
    assert candidate.planner == "weight"
    assert not candidate.indicators


def test_actuator_passes_actions_through_in_order(scenarios: ModuleType) -> None:
    strategy = Actuator()
    move = {"migration_type": "live", "source_node": "hostname_0", "destination_node": "hostname_1"}
    given = {
        "actions": [
            {"action_type": "TEST", "input_parameters": {"a": "b"}},
            {"action_type": "migrate", "resource_id": "INSTANCE_0", "input_parameters": move},
        ]
    }
    snapshot = scenarios.snapshot(strategy, scenarios.scenario_1_with_metrics(), given)
    (candidate,) = strategy.propose(snapshot, read_parameters(strategy, given), Context())
    assert candidate.steps == (Act("TEST", None, {"a": "b"}), Act("migrate", "INSTANCE_0", move))
    assert candidate.planner == "weight"


def test_an_extra_property_of_an_action_has_no_effect(scenarios: ModuleType) -> None:
    """Watcher's schema lets it pass and its strategy then fails with a TypeError."""
    strategy = Actuator()
    given = {"actions": [{"action_type": "nop", "input_parameters": {}, "comment": "hello"}]}
    snapshot = scenarios.snapshot(strategy, scenarios.scenario_1_with_metrics(), given)
    (candidate,) = strategy.propose(snapshot, read_parameters(strategy, given), Context())
    assert candidate.steps == (Act("nop", None, {}),)
