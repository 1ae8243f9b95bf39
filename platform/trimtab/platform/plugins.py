"""Plug-ins found through entry points, as tables by name: strategies, goals, actions, planners, scoring engines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import entry_points
from typing import Any

from trimtab.platform.contracts import (
    ActionHandler,
    Goal,
    Planner,
    ScoringEngine,
    ScoringEngineContainer,
    Strategy,
)
from trimtab.platform.errors import NotFound, TrimtabError


@dataclass(frozen=True, slots=True)
class Plugins:
    """What is installed. Strategies and goals are instances, handlers are classes, planners are functions."""

    strategies: Mapping[str, Strategy]
    goals: Mapping[str, Goal]
    actions: Mapping[str, type[ActionHandler]]
    planners: Mapping[str, Planner] = field(default_factory=dict)

    def strategy(self, name: str) -> Strategy:
        """One strategy.

        Raises:
            NotFound: no such strategy is installed.
        """
        if name not in self.strategies:
            raise NotFound(f"Strategy {name} is not installed; there are {', '.join(self.strategies)}")
        return self.strategies[name]

    def of_goal(self, goal: str) -> list[Strategy]:
        """Strategies of a goal, by name."""
        return [strategy for strategy in self.strategies.values() if strategy.goal == goal]


@cache
def load() -> Plugins:
    """Load everything that is installed, by name.

    Raises:
        TrimtabError: an entry point cannot be imported, its name is not the plug-in's own or is taken, or a strategy
            lacks a member or names a goal that is not there.
    """
    strategies: dict[str, Strategy] = {}
    for name, cls in _group("trimtab.strategies").items():
        strategies[name] = cls()
        if not isinstance(strategies[name], Strategy):
            raise TrimtabError(f"strategy {name} ({cls.__module__}) lacks a member of contracts.Strategy")
        _same_name(name, strategies[name].name)
    goals: dict[str, Goal] = _group("trimtab.goals")
    for name, goal in goals.items():
        _same_name(name, goal.name)
    for strategy in strategies.values():
        if strategy.goal not in goals:
            raise TrimtabError(f"strategy {strategy.name} wants goal {strategy.goal}, which is not installed")
    actions: dict[str, type[ActionHandler]] = _group("trimtab.actions")
    for name, handler in actions.items():
        _same_name(name, handler.action_type)
    return Plugins(strategies, goals, actions, _group("trimtab.planners"))


def scoring_engines() -> dict[str, ScoringEngine]:
    """All installed scoring engines by name: single ones, then those of containers; of equal names the later counts.

    Looked for anew every time, because a container may give others than before.

    Raises:
        TrimtabError: an entry point cannot be imported, or gives what is no engine or container.
    """
    found: dict[str, ScoringEngine] = {}
    for name, cls in _group("trimtab.scoring_engines").items():
        one = cls()
        if not isinstance(one, ScoringEngine):
            raise TrimtabError(f"scoring engine {name} ({cls.__module__}) lacks a member of contracts.ScoringEngine")
        _same_name(name, one.name)
        found[one.name] = one
    for name, container in _group("trimtab.scoring_engine_containers").items():
        if not isinstance(container, ScoringEngineContainer):
            raise TrimtabError(f"scoring engine container {name} has no get_scoring_engine_list: add it")
        for one in container.get_scoring_engine_list():
            if not isinstance(one, ScoringEngine):
                raise TrimtabError(f"container {name} gives {one!r}, which is no contracts.ScoringEngine")
            found[one.name] = one
    return found


def _group(group: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for point in sorted(entry_points(group=group), key=lambda point: point.name):
        if point.name in found:
            raise TrimtabError(f"two installed packages have a plug-in {point.name} of {group}: remove one of them")
        try:
            found[point.name] = point.load()
        except Exception as error:  # a module being imported may raise anything
            raise TrimtabError(f"plug-in {point.name} of {group} ({point.value}) cannot be loaded: {error}") from error
    return found


def _same_name(entry: str, own: str) -> None:
    if entry != own:
        raise TrimtabError(f"entry point {entry!r} gives a plug-in that calls itself {own!r}: use one name")
