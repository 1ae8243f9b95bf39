"""A move that is not worth its cost, from an audit over HTTP: left out and named, or kept where a setting says so."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import pytest
from pydantic import BaseModel

from trimtab.platform import rules, trial
from trimtab.platform.contracts import Context
from trimtab.platform.model import InstanceState
from trimtab.platform.plugins import Plugins, load
from trimtab.platform.proposal import Candidate, Migrate
from trimtab.platform.settings import Settings
from trimtab.platform.snapshot import Need, Snapshot


class Nothing(BaseModel):
    """No parameters."""


class Shuffle:
    """Moves one stopped instance, which relieves nobody."""

    name: ClassVar[str] = "workload_stabilization"
    display_name: ClassVar[str] = "Shuffle"
    goal: ClassVar[str] = "workload_balancing"
    parameters: ClassVar[type[BaseModel]] = Nothing
    models: ClassVar[tuple[str, ...]] = ("compute",)

    def needs(self, parameters: Any) -> Sequence[Need]:
        return []

    def grid(self) -> Sequence[Mapping[str, Any]]:
        return [{}]

    def propose(self, snapshot: Snapshot, parameters: Any, context: Context) -> Sequence[Candidate]:
        model = snapshot.model
        for row in np.flatnonzero(model.movable & (model.state == InstanceState.STOPPED)).tolist():
            hosts = np.flatnonzero(rules.destinations(model.placement(), row))
            if len(hosts):
                return [Candidate((Migrate(row, int(hosts[0]), live=False),), because="for the sake of it")]
        return []


@pytest.mark.parametrize("weigh", [True, False])
async def test_a_move_that_brings_nothing_is_left_out_unless_the_setting_is_off(
    working: Any, monkeypatch: pytest.MonkeyPatch, weigh: bool
) -> None:
    plugins = Plugins({Shuffle.name: Shuffle()}, load().goals, load().actions)
    monkeypatch.setattr(trial, "load", lambda: plugins)
    object.__setattr__(working.parts, "plugins", plugins)
    object.__setattr__(working.parts, "weigh", weigh)
    body = {"audit_type": "ONESHOT", "goal": "workload_balancing", "strategy": Shuffle.name}
    audit = await working.ended(f"/v1/audits/{(await working.post('/v1/audits', body))['uuid']}")
    assert audit["state"] == "SUCCEEDED"
    candidates = (await working.get(f"/v1/audits/{audit['uuid']}/candidates"))["candidates"]
    mine = next(row for row in candidates if row["strategy_name"] == Shuffle.name)
    assert (mine["verdict"], mine["steps"]) == ("chosen", 0 if weigh else 1)
    assert ("moving it costs" in mine["because"]) == weigh, mine["because"]
    (plan,) = (await working.get("/v1/action_plans", audit_uuid=audit["uuid"]))["action_plans"]
    assert plan["state"] == ("SUCCEEDED" if weigh else "RECOMMENDED")
    told = await working.get(f"/v1/action_plans/{plan['uuid']}/explanation")
    assert "for the sake of it" in told["because"]
    assert ("moving it costs" in told["because"]) == weigh
    assert len(told["explanation"]) == (0 if weigh else 1)


def test_the_setting_is_on_by_default_and_can_be_turned_off(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings().weigh_moves
    monkeypatch.setenv("TRIMTAB_WEIGH_MOVES", "false")
    assert not Settings().weigh_moves
