"""Scoring engines, and the dummy strategies that show them and a resize."""

from __future__ import annotations

import json
from types import ModuleType
from typing import Any

import pytest

from trimtab.platform.contracts import Context
from trimtab.platform.errors import InvalidInput, NotFound
from trimtab.platform.planner import plan_weight
from trimtab.platform.proposal import Act, Limits
from trimtab.platform.schema import read_parameters
from trimtab.platform.snapshot import Snapshot
from trimtab.strategies.library.dummy_with_resize import DummyWithResize
from trimtab.strategies.library.dummy_with_scorer import DummyWithScorer
from trimtab.strategies.scoring import engine, engines

MIB = 2**20


def score(name: str, features: Any) -> list[float]:
    return json.loads(engine(name).calculate_score(json.dumps(features)))


def test_all_of_watchers_engines_are_installed() -> None:
    assert {name: (one.name, one.description) for name, one in engines().items()} == {
        "dummy_scorer": ("dummy_scorer", "Dummy workload classifier"),
        "dummy_min_scorer": ("dummy_min_scorer", "Dummy Scorer calculating the minimum value"),
        "dummy_max_scorer": ("dummy_max_scorer", "Dummy Scorer calculating the maximum value"),
        "dummy_avg_scorer": ("dummy_avg_scorer", "Dummy Scorer calculating the average value"),
    }
    with pytest.raises(
        NotFound, match="scoring engine nope is not installed; there are dummy_scorer, dummy_min_scorer"
    ):
        engine("nope")


def test_metainfo_says_how_to_read_the_score() -> None:
    known = json.loads(engine("dummy_scorer").metainfo)
    assert list(known) == ["feature_columns", "result_columns", "workloads"]
    assert len(known["feature_columns"]) == 9
    assert len(known["result_columns"]) == 5
    assert known["workloads"] == ["idle", "cpu-intensive", "memory-intensive", "disk-intensive"]
    assert engine("dummy_avg_scorer").metainfo == ""


@pytest.mark.parametrize(
    ("features", "expected"),
    [
        ([0, 4, 1, 0, 0, 0, 0, 0, 0], [0, 100.0, 0.0, 0.0, 0.0]),
        ([80, 4, 1, 2000, 2000, 0, 0, 0, 0], [1, 0.0, 100.0, 0.0, 0.0]),
        ([79.9, 4, 1, 1000, 1000, 99 * MIB, 99 * MIB, 0, 0], [2, 0.0, 0.0, 100.0, 0.0]),
        ([50, 4, 1, 1000, 999, 50 * MIB, 50 * MIB, 0, 0], [3, 0.0, 0.0, 0.0, 100.0]),
        ([40, 4, 1, 0, 500, 50 * MIB, 0, 0, 0], [0, 100.0, 50.0, 50.0, 0.0]),
        ([39, 4, 1, 499, 499, 0, 50 * MIB, 0, 0], [0, 100.0, 0.0, 0.0, 0.0]),
    ],
)
def test_workloads_are_told_apart_by_watchers_rules(features: list[float], expected: list[float]) -> None:
    assert score("dummy_scorer", features) == expected


def test_functions_of_numbers() -> None:
    numbers = [3, 1, 2.5, 5]
    assert score("dummy_min_scorer", numbers) == [1]
    assert score("dummy_max_scorer", numbers) == [5]
    assert score("dummy_avg_scorer", numbers) == [2.875]


@pytest.mark.parametrize(
    ("name", "features", "complaint"),
    [
        ("dummy_scorer", "[1, 2]", "2 features given, 9 are needed"),
        ("dummy_scorer", "{", "the features are no JSON"),
        ("dummy_scorer", '{"a": 1}', "must be a JSON list of numbers"),
        ("dummy_avg_scorer", '["1"]', "must be a JSON list of numbers"),
        ("dummy_avg_scorer", "[true]", "must be a JSON list of numbers"),
        ("dummy_min_scorer", "[]", "at least one is needed"),
    ],
)
def test_features_that_cannot_be_read_are_named(name: str, features: str, complaint: str) -> None:
    with pytest.raises(InvalidInput, match=f"scoring engine {name}: .*{complaint}"):
        engine(name).calculate_score(features)


def test_dummy_with_scorer_says_what_the_engines_say(scenarios: ModuleType) -> None:
    """D14: four actions; the same seed draws the same telemetry, another one another."""
    strategy = DummyWithScorer()
    snapshot = Snapshot(scenarios.scenario_1(), 0.0)
    parameters = read_parameters(strategy, {"param1": 4.0, "param2": "Hi"})
    told = set()
    for seed in range(12):
        (candidate,) = strategy.propose(snapshot, parameters, Context(seed=seed))
        assert strategy.propose(snapshot, parameters, Context(seed=seed)) == (candidate,)
        hello, workload, average, sleep = candidate.steps
        assert hello == Act("nop", None, {"message": "Hello from Dummy Strategy with Scorer!"})
        assert sleep == Act("sleep", None, {"duration": 5.0})
        assert isinstance(workload, Act)
        assert isinstance(average, Act)
        told.add(workload.parameters["message"])
        assert 0 <= float(average.parameters["message"].removeprefix("AVG Scorer result: ")) < 1000
    assert len(told) > 1
    kinds = {"idle", "cpu-intensive", "memory-intensive", "disk-intensive"}
    assert told <= {f"Detected Workload: {kind}" for kind in kinds}


def test_dummy_with_resize_migrates_two_and_resizes_one(scenarios: ModuleType) -> None:
    strategy = DummyWithResize()
    snapshot = Snapshot(scenarios.scenario_1(), 0.0)
    (candidate,) = strategy.propose(snapshot, read_parameters(strategy, {}), Context())
    first, second = "b199db0c-1408-4d52-b5a5-5ca14de0ff36", "8db1b3c1-7938-4c34-8c03-6de14b874f8f"
    move = {"migration_type": "live", "source_node": "compute2", "destination_node": "compute3"}
    assert candidate.steps == (
        Act("nop", None, {"message": "hello World"}),
        Act("nop", None, {"message": "Welcome"}),
        Act("sleep", None, {"duration": 5.0}),
        Act("migrate", first, move),
        Act("migrate", second, move),
        Act("resize", second, {"flavor": "x2"}),
    )
    made = plan_weight(snapshot.model, candidate, Limits())
    assert [action.action_type for action in made.actions] == ["nop", "nop", "sleep", "migrate", "migrate", "resize"]
