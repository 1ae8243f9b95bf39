"""Plug-ins: what is installed is found by its entry point; what is wrong with one is said by name."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from trimtab.platform.contracts import Strategy
from trimtab.platform.errors import NotFound, TrimtabError
from trimtab.platform.plugins import load
from trimtab.platform.schema import read_parameters

Install = Callable[..., None]

STRATEGY = """
from pydantic import BaseModel
class Parameters(BaseModel):
    size: int = 3
class Odd:
    name = "odd"
    display_name = "Odd one"
    goal = "dummy"
    parameters = Parameters
    models = ("compute",)
    def needs(self, parameters): return []
    def grid(self): return [{}]
    def propose(self, snapshot, parameters, context): return []
class Homeless(Odd):
    name = "homeless"
    goal = "no_such_goal"
class Half:
    name = "half"
class Handler:
    action_type = "reboot"
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Put a package with entry points where Python looks for packages, as pip would."""
    monkeypatch.syspath_prepend(str(tmp_path))
    number = 0

    def put(entry_points: str, code: str = STRATEGY) -> None:
        nonlocal number
        number += 1
        about = tmp_path / f"odd{number}-1.0.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: odd{number}\nVersion: 1.0\n")
        (about / "entry_points.txt").write_text(entry_points)
        (tmp_path / "odd_plugins.py").write_text(code)

    yield put
    sys.modules.pop("odd_plugins", None)


def fresh() -> object:
    """Look again, beside the cache that the rest of this process uses."""
    return load.__wrapped__()


def test_everything_of_this_project_is_found_under_its_own_name() -> None:
    found = load()
    assert {"vm_workload_consolidation", "workload_stabilization", "dummy", "actuator"} <= set(found.strategies)
    assert {"server_consolidation", "workload_balancing", "dummy", "unclassified"} <= set(found.goals)
    assert {"migrate", "nop", "sleep", "change_nova_service_state"} <= set(found.actions)
    for name, strategy in found.strategies.items():
        assert isinstance(strategy, Strategy)
        assert (strategy.name, strategy.goal in found.goals) == (name, True)
        for point in strategy.grid():
            read_parameters(strategy, point)
    assert all(goal.name == name for name, goal in found.goals.items())
    assert all(handler.action_type == name for name, handler in found.actions.items())
    assert load() is found, "looking for plug-ins is slow and done once a process"


def test_strategies_of_a_goal_come_by_name() -> None:
    found = load()
    for goal in found.goals:
        named = [strategy.name for strategy in found.of_goal(goal)]
        assert named == sorted(named)
        assert named, f"goal {goal} has no strategy"


def test_a_strategy_that_is_not_installed_is_named_with_those_that_are() -> None:
    with pytest.raises(NotFound, match=r"teleport is not installed; there are .*dummy"):
        load().strategy("teleport")


def test_another_package_brings_a_strategy(install: Install) -> None:
    install("[trimtab.strategies]\nodd = odd_plugins:Odd\n")
    found = load.__wrapped__()
    names = [strategy.name for strategy in found.of_goal("dummy")]
    assert names == ["dummy", "dummy_with_resize", "dummy_with_scorer", "odd"]
    assert "odd" not in load().strategies


@pytest.mark.parametrize(
    ("entry_points", "complaint"),
    [
        ("[trimtab.strategies]\nother = odd_plugins:Odd\n", "'other' gives a plug-in that calls itself 'odd'"),
        ("[trimtab.strategies]\nodd = odd_plugins:Nobody\n", "odd of trimtab.strategies .* cannot be loaded"),
        ("[trimtab.strategies]\nodd = no_such_module:Odd\n", "No module named 'no_such_module'"),
        ("[trimtab.strategies]\nhalf = odd_plugins:Half\n", "half .* lacks a member of contracts.Strategy"),
        ("[trimtab.strategies]\nhomeless = odd_plugins:Homeless\n", "wants goal no_such_goal, which is not installed"),
        ("[trimtab.strategies]\ndummy = odd_plugins:Odd\n", "two installed packages have a plug-in dummy"),
        ("[trimtab.actions]\nboot = odd_plugins:Handler\n", "'boot' gives a plug-in that calls itself 'reboot'"),
    ],
)
def test_what_is_wrong_with_a_plug_in_is_said_by_name(install: Install, entry_points: str, complaint: str) -> None:
    install(entry_points)
    with pytest.raises(TrimtabError, match=complaint):
        fresh()


def test_a_plug_in_that_cannot_even_be_parsed_is_named(install: Install) -> None:
    install("[trimtab.strategies]\nodd = odd_plugins:Odd\n", "def broken(:\n")
    with pytest.raises(TrimtabError, match=r"plug-in odd of trimtab.strategies \(odd_plugins:Odd\) cannot be loaded"):
        fresh()
