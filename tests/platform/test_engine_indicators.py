"""What a strategy says of its efficacy is checked before anybody relies on it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tests.platform.engine_stage import Stage

from trimtab.platform import trial
from trimtab.platform.contracts import Indicator
from trimtab.platform.efficacy import check_indicators
from trimtab.platform.errors import StrategyError
from trimtab.platform.plugins import Plugins, load
from trimtab.platform.proposal import Act, Candidate

GOAL = replace(
    load().goals["dummy"],
    indicators=(
        Indicator("moves", "Moves", '{"type": "integer", "minimum": 0}'),
        Indicator("share", "A share", '{"type": "number", "maximum": 1}'),
        Indicator("anything", "Anything"),
    ),
)


@pytest.fixture
def stage() -> Iterator[Stage]:
    made = Stage()
    yield made
    made.store.close()


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"moves": 3},
        {"moves": 3.0, "share": 0.5, "anything": -1e9},
        {"moves": np.int64(0), "share": np.float32(1)},
        {"of nobody's goal": math.nan},
    ],
)
def test_indicators_as_the_goal_wants_them_are_fine_and_none_is_needed(given: dict[str, Any]) -> None:
    check_indicators(GOAL, given)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"moves": -1}, "indicator moves of goal dummy breaks its schema: -1.0 is less than the minimum of 0"),
        ({"moves": 2.5}, "2.5 is not of type 'integer'"),
        ({"share": 2}, "2.0 is greater than the maximum of 1"),
        ({"anything": math.inf}, "indicator anything of goal dummy is inf: give a finite number"),
        ({"anything": None}, "is None: give a finite number"),
        ({"anything": "many"}, "is 'many': give a finite number"),
    ],
)
def test_others_are_refused_by_name(given: dict[str, Any], text: str) -> None:
    with pytest.raises(StrategyError, match=text):
        check_indicators(GOAL, given)


async def test_an_audit_whose_strategy_says_nonsense_of_its_efficacy_fails(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = load()
    dummy = installed.strategies["dummy"]

    class Boasting(type(dummy)):  # type: ignore[misc]
        def propose(self, *_: Any) -> Any:
            return [Candidate((Act("nop", None, {"message": "x"}),), indicators={"moves": -1}, planner="weight")]

    boasting = Plugins({"dummy": Boasting()}, {**installed.goals, "dummy": GOAL}, installed.actions, installed.planners)
    monkeypatch.setattr(trial, "load", lambda: boasting)
    uuid = stage.audit()
    await stage.serve(10, stage.parts(plugins=boasting))
    audit = stage.of(uuid)
    assert (audit.state, stage.plans(uuid)) == ("FAILED", [])
    assert "indicator moves of goal dummy breaks its schema" in (audit.status_message or "")
