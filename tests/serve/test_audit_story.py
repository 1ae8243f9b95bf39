"""One audit end to end through HTTP, in this process: proposed, rehearsed, ranked, planned, applied."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from pydantic import BaseModel

from trimtab.platform import engine, outcome, trial
from trimtab.platform.contracts import Context
from trimtab.platform.plugins import Plugins, load
from trimtab.platform.proposal import Act, Candidate, Migrate
from trimtab.platform.snapshot import Need, Snapshot
from trimtab.simulator.truth import CloudSpec


async def audit_of(working: Any, **body: Any) -> dict[str, Any]:
    made = await working.post("/v1/audits", {"audit_type": "ONESHOT", **body})
    return dict(await working.ended(f"/v1/audits/{made['uuid']}"))


async def plan_of(working: Any, audit: Mapping[str, Any]) -> dict[str, Any]:
    plans = (await working.get("/v1/action_plans/detail", audit_uuid=audit["uuid"]))["action_plans"]
    assert len(plans) == 1, "losers are candidates, never action plans"
    return dict(plans[0])


async def test_consolidation_goes_from_an_audit_to_a_changed_cloud(working: Any) -> None:
    in_use = working.cloud.figures()["hosts_in_use"]
    audit = await audit_of(working, goal="server_consolidation")
    assert (audit["state"], audit["strategy_name"]) == ("SUCCEEDED", None)
    candidates = (await working.get(f"/v1/audits/{audit['uuid']}/candidates"))["candidates"]
    assert [c["verdict"] for c in candidates].count("chosen") == 1
    assert candidates[0]["verdict"] == "chosen"
    nothing = next(c for c in candidates if c["strategy_name"] == "do_nothing")
    assert candidates[0]["score"]["hosts_in_use"] < nothing["score"]["hosts_in_use"] == in_use
    assert all(c["node"] and c["worker"] and c["rehearse_s"] > 0 for c in candidates)
    ranks = sorted(c["rank"] for c in candidates if c["rank"])
    assert ranks == list(range(1, len(ranks) + 1))
    plan = await plan_of(working, audit)
    assert (plan["state"], plan["strategy_name"]) == ("RECOMMENDED", candidates[0]["strategy_name"])
    assert {i["name"] for i in plan["efficacy_indicators"]} == {
        "compute_nodes_count",
        "released_compute_nodes_count",
        "instance_migrations_count",
    }
    started = await working.post(f"/v1/action_plans/{plan['uuid']}/start", {})
    assert started["state"] == "PENDING"
    ended = await working.ended(f"/v1/action_plans/{plan['uuid']}")
    actions = (await working.get("/v1/actions/detail", action_plan_uuid=plan["uuid"]))["actions"]
    assert ended["state"] == "SUCCEEDED", [a["status_message"] for a in actions if a["state"] == "FAILED"]
    assert {a["state"] for a in actions} == {"SUCCEEDED"}
    moved = working.cloud.all_migrations()
    migrates = [a for a in actions if a["action_type"] == "migrate"]
    assert sorted(m.server_id for m in moved) == sorted(a["input_parameters"]["resource_id"] for a in migrates)
    assert {m.status for m in moved} == {"completed"}
    assert working.cloud.figures()["hosts_in_use"] == candidates[0]["score"]["hosts_in_use"] < in_use
    again = await working.http.post(f"/v1/action_plans/{plan['uuid']}/start", json={})
    assert again.status_code == 400
    assert "Couldn't start when state is 'SUCCEEDED'." in again.text


async def test_a_named_strategy_runs_with_exactly_its_stored_parameters(working: Any) -> None:
    audit = await audit_of(
        working,
        goal="workload_balancing",
        strategy="workload_stabilization",
        parameters={"thresholds": {"instance_cpu_usage": 0.01}, "host_choice": "fullsearch"},
    )
    candidates = (await working.get(f"/v1/audits/{audit['uuid']}/candidates"))["candidates"]
    assert [c["strategy_name"] for c in candidates if c["strategy_name"] != "do_nothing"] == ["workload_stabilization"]
    chosen = candidates[0]
    assert chosen["parameters"] == audit["parameters"]
    assert chosen["parameters"]["thresholds"] == {"instance_cpu_usage": 0.01}
    nothing = next(c for c in candidates if c["strategy_name"] == "do_nothing")
    assert chosen["score"]["cpu_sd_pp"] < nothing["score"]["cpu_sd_pp"]


async def test_the_dummy_goal_takes_its_strategy_by_name_and_keeps_watchers_order(working: Any) -> None:
    audit = await audit_of(working, goal="dummy")
    plan = await plan_of(working, audit)
    actions = (await working.get("/v1/actions/detail", action_plan_uuid=plan["uuid"]))["actions"]
    assert [(a["action_type"], len(a["parents"])) for a in actions] == [("nop", 0), ("nop", 1), ("sleep", 1)]
    assert actions[1]["parents"] == [actions[0]["uuid"]]
    assert actions[0]["description"] == "Logging a NOP message"


async def test_the_actuator_passes_its_actions_through_and_they_run(working: Any) -> None:
    actions = [
        {"action_type": "sleep", "input_parameters": {"duration": 0}},
        {"action_type": "nop", "input_parameters": {"message": "hello"}},
    ]
    audit = await audit_of(
        working, goal="unclassified", strategy="actuator", parameters={"actions": actions}, auto_trigger=True
    )
    plan = await plan_of(working, audit)
    ended = await working.ended(f"/v1/action_plans/{plan['uuid']}")
    assert ended["state"] == "SUCCEEDED"
    rows = (await working.get("/v1/actions", action_plan_uuid=plan["uuid"]))["actions"]
    assert [(row["action_type"], row["state"]) for row in rows] == [("nop", "SUCCEEDED"), ("sleep", "SUCCEEDED")]


async def test_an_audit_while_a_plan_is_ongoing_is_cancelled_unless_forced(working: Any) -> None:
    slow = [{"action_type": "sleep", "input_parameters": {"duration": 2}}]
    first = await audit_of(
        working, goal="unclassified", strategy="actuator", parameters={"actions": slow}, auto_trigger=True
    )
    refused = await audit_of(working, goal="dummy")
    assert refused["state"] == "CANCELLED"
    assert "an action plan is ongoing" in refused["status_message"]
    forced = await audit_of(working, goal="dummy", force=True)
    assert forced["state"] == "SUCCEEDED"
    await working.ended(f"/v1/action_plans/{(await plan_of(working, first))['uuid']}")


async def test_a_scope_keeps_the_plan_inside_and_excluded_instances_in_place(working: Any) -> None:
    inventory = working.cloud.inventory()
    zone = inventory.hosts.column("zone").to_pylist()[0]
    inside = {
        name
        for name, where in zip(
            inventory.hosts.column("hostname").to_pylist(), inventory.hosts.column("zone").to_pylist(), strict=True
        )
        if where == zone
    }
    spared = inventory.instances.column("uuid").to_pylist()[:60]
    scope = [{"availability_zones": [{"name": zone}]}, {"exclude": [{"instances": [{"uuid": i} for i in spared]}]}]
    template = await working.post(
        "/v1/audit_templates",
        {"name": "zone", "goal": "server_consolidation", "strategy": "vm_workload_consolidation", "scope": scope},
    )
    audit = await audit_of(working, audit_template_uuid=template["uuid"])
    plan = await plan_of(working, audit)
    actions = (await working.get("/v1/actions/detail", action_plan_uuid=plan["uuid"]))["actions"]
    moves = [a["input_parameters"] for a in actions if a["action_type"] == "migrate"]
    assert {move["source_node"] for move in moves} | {move["destination_node"] for move in moves} <= inside
    assert not {move["resource_id"] for move in moves} & set(spared)


class Nowhere(BaseModel):
    """No parameters."""


class Overfill:
    """Sends everything to host 0, whatever fits: every candidate breaks a hard rule."""

    name: ClassVar[str] = "overfill"
    display_name: ClassVar[str] = "Overfill"
    goal: ClassVar[str] = "server_consolidation"
    parameters: ClassVar[type[BaseModel]] = Nowhere
    models: ClassVar[tuple[str, ...]] = ("compute",)

    def needs(self, parameters: Any) -> Sequence[Need]:
        return []

    def grid(self) -> Sequence[Mapping[str, Any]]:
        return [{}]

    def propose(self, snapshot: Snapshot, parameters: Any, context: Context) -> Sequence[Candidate]:
        rows = np.flatnonzero(snapshot.model.movable & (snapshot.model.host_of != 0))
        return [Candidate(tuple(Migrate(int(row), 0) for row in rows))]


class Crash(Overfill):
    """Always raises."""

    name: ClassVar[str] = "crash"

    def propose(self, snapshot: Snapshot, parameters: Any, context: Context) -> Sequence[Candidate]:
        raise RuntimeError("a bug")


def install(monkeypatch: pytest.MonkeyPatch, working: Any, *strategies: Any) -> None:
    installed = load()
    wanted = Plugins({s.name: s for s in strategies}, installed.goals, installed.actions)
    monkeypatch.setattr(trial, "load", lambda: wanted)
    object.__setattr__(working.parts, "plugins", wanted)


async def test_when_all_candidates_are_rejected_the_audit_succeeds_with_an_empty_plan_and_says_why(
    working: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, working, Overfill())
    monkeypatch.setattr(Overfill, "name", "vm_workload_consolidation")
    install(monkeypatch, working, Overfill())
    audit = await audit_of(working, goal="server_consolidation")
    assert audit["state"] == "SUCCEEDED"
    assert "All candidates were rejected" in audit["status_message"]
    plan = await plan_of(working, audit)
    assert plan["state"] == "SUCCEEDED"
    assert (await working.get("/v1/actions", action_plan_uuid=plan["uuid"]))["actions"] == []
    rejected = [
        c
        for c in (await working.get(f"/v1/audits/{audit['uuid']}/candidates"))["candidates"]
        if c["verdict"] == "rejected"
    ]
    assert len(rejected) == 1
    assert rejected[0]["reason"]


async def test_one_crashing_strategy_does_not_take_the_others_with_it(
    working: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = load().strategies["vm_workload_consolidation"]
    install(monkeypatch, working, good, Crash())
    audit = await audit_of(working, goal="server_consolidation")
    assert audit["state"] == "SUCCEEDED"
    candidates = (await working.get(f"/v1/audits/{audit['uuid']}/candidates"))["candidates"]
    failed = [c for c in candidates if c["verdict"] == "failed"]
    assert [c["reason"] for c in failed] == ["RuntimeError: a bug"]
    assert candidates[0]["verdict"] == "chosen"


async def test_when_every_strategy_crashes_the_audit_fails_and_says_why(
    working: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, working, Crash())
    audit = await audit_of(working, goal="server_consolidation")
    assert (audit["state"], audit["status_message"]) == ("FAILED", "strategy crash failed: RuntimeError: a bug")


async def test_a_plan_must_beat_doing_nothing(working: Any) -> None:
    first = await audit_of(working, goal="server_consolidation")
    plan = await plan_of(working, first)
    await working.post(f"/v1/action_plans/{plan['uuid']}/start", {})
    await working.ended(f"/v1/action_plans/{plan['uuid']}")
    second = await audit_of(working, goal="server_consolidation")
    candidates = (await working.get(f"/v1/audits/{second['uuid']}/candidates"))["candidates"]
    nothing = next(c for c in candidates if c["strategy_name"] == "do_nothing")
    if (await plan_of(working, second))["state"] == "RECOMMENDED":
        assert candidates[0]["score"]["hosts_in_use"] <= nothing["score"]["hosts_in_use"]
    else:
        assert second["status_message"]


async def test_a_pending_plan_is_cancelled_with_all_its_actions(idle: Any) -> None:
    made = await idle.post("/v1/audits", {"audit_type": "ONESHOT", "goal": "dummy"})
    await engine.run_audit(idle.parts, made["uuid"])
    plan = await plan_of(idle, made)
    assert (await idle.post(f"/v1/action_plans/{plan['uuid']}/start", {}))["state"] == "PENDING"
    patch = [{"op": "replace", "path": "/state", "value": "CANCELLED"}]
    answer = await idle.http.patch(f"/v1/action_plans/{plan['uuid']}", json=patch)
    assert answer.json()["state"] == "CANCELLED"
    actions = (await idle.get("/v1/actions", action_plan_uuid=plan["uuid"]))["actions"]
    assert {a["state"] for a in actions} == {"CANCELLED"}
    assert (await idle.http.delete(f"/v1/action_plans/{plan['uuid']}")).status_code == 204
    assert (await idle.get("/v1/actions"))["actions"] == []


async def test_an_audit_cancelled_while_it_runs_stays_cancelled(idle: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made = await idle.post("/v1/audits", {"audit_type": "ONESHOT", "goal": "dummy"})
    freeze = idle.parts.freeze

    async def meanwhile(*args: Any) -> Any:
        patch = [{"op": "replace", "path": "/state", "value": "CANCELLED"}]
        assert (await idle.http.patch(f"/v1/audits/{made['uuid']}", json=patch)).status_code == 200
        return await freeze(*args)

    object.__setattr__(idle.parts, "freeze", meanwhile)
    assert await engine.run_audit(idle.parts, made["uuid"]) is None
    assert (await idle.get(f"/v1/audits/{made['uuid']}"))["state"] == "CANCELLED"
    assert (await idle.get("/v1/action_plans"))["action_plans"] == []


class Silent(Overfill):
    """Never has anything to propose."""

    name: ClassVar[str] = "vm_workload_consolidation"

    def propose(self, snapshot: Snapshot, parameters: Any, context: Context) -> Sequence[Candidate]:
        return []


@pytest.mark.parametrize("named", [None, "vm_workload_consolidation"])
async def test_strategies_without_a_proposal_end_in_an_empty_plan_that_says_so(
    working: Any, monkeypatch: pytest.MonkeyPatch, named: str | None
) -> None:
    install(monkeypatch, working, Silent())
    audit = await audit_of(working, goal="server_consolidation", **({"strategy": named} if named else {}))
    assert (audit["state"], audit["status_message"]) == ("SUCCEEDED", outcome.NO_PROPOSAL)
    assert (await plan_of(working, audit))["state"] == "SUCCEEDED"


class Disguised(Overfill):
    """Moves locked-out instances by acts instead of moves, and wants a planner that is not there."""

    name: ClassVar[str] = "vm_workload_consolidation"
    planner = "capacity"

    def propose(self, snapshot: Snapshot, parameters: Any, context: Context) -> Sequence[Candidate]:
        model = snapshot.model
        row = int(np.flatnonzero(model.excluded & (model.host_of > 0))[0])
        wire = {
            "migration_type": "live",
            "source_node": model.host_name(int(model.host_of[row])),
            "destination_node": model.host_name(0),
        }
        return [Candidate((Act("migrate", model.instance_id(row), wire),), planner=self.planner)]


@pytest.mark.parametrize(
    ("planner", "reason"), [("capacity", "excluded by the audit's scope"), ("moon", "no planner 'moon'")]
)
async def test_migrations_in_the_guise_of_acts_are_judged_too(
    working: Any, monkeypatch: pytest.MonkeyPatch, planner: str, reason: str
) -> None:
    monkeypatch.setattr(Disguised, "planner", planner)
    install(monkeypatch, working, Disguised())
    uuids = working.cloud.inventory().instances.column("uuid").to_pylist()
    scope = [{"exclude": [{"instances": [{"uuid": uuid} for uuid in uuids]}]}]
    template = await working.post("/v1/audit_templates", {"name": "t", "goal": "server_consolidation", "scope": scope})
    audit = await audit_of(working, audit_template_uuid=template["uuid"])
    assert reason in audit["status_message"]


async def scores_of(working: Any, audit: Mapping[str, Any]) -> list[tuple[str, Any]]:
    candidates = (await working.get(f"/v1/audits/{audit['uuid']}/candidates"))["candidates"]
    return sorted((f"{c['strategy_name']} {c['parameters']} {c['number']}", c["score"]) for c in candidates)


async def test_the_future_changes_what_is_measured_and_no_score(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """The rehearsal knows only what an operator knows: two clouds with one past and two futures get the same scores."""
    whole = request.getfixturevalue("whole_trimtab")
    scores, measured = [], []
    for future in (None, 99):
        # The clock stands still but for the jump below, so both audits see the same moment.
        spec = CloudSpec(hosts=20, instances=120, seed=3, start_s=1.8e9)
        folder = tmp_path / str(future)
        folder.mkdir()
        async with whole(folder, spec, now=lambda: 1.8e9) as running:
            if future is not None:
                running.cloud.rewrite_future(future)
            audit = await audit_of(running, goal="server_consolidation")
            scores.append(await scores_of(running, audit))
            start = running.cloud.now()
            running.cloud.fast_forward(86_400.0)
            measured.append(running.cloud.measure(start, start + 86_000.0))
    assert scores[0] == scores[1]
    assert len(scores[0]) > 3
    assert measured[0] != measured[1]
