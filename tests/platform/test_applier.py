"""The applier's plans live, fail, are cancelled, rolled back and resumed in honest states; the cloud is simulated."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_OID, uuid5

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.platform.applier import run_plan, serve_plans
from trimtab.platform.clocks import VirtualClock
from trimtab.platform.contracts import Migration, Tools
from trimtab.platform.errors import CloudUnavailable, Conflict, IllegalTransition
from trimtab.platform.model import ClusterModel, write_model
from trimtab.platform.plugins import load
from trimtab.platform.proposal import Limits
from trimtab.platform.records import Action, ActionPlan, Audit, Goal, Strategy
from trimtab.platform.store.port import StorePort
from trimtab.platform.store.state import Store
from trimtab.simulator.cloud import SimulatedCloud
from trimtab.simulator.driver import SimulatedDriver, local_call
from trimtab.simulator.faults import Fault
from trimtab.simulator.truth import CloudSpec

START = 1_700_000_000.0
HANDLERS: Mapping[str, Any] = load().actions
SKIPPED_SOME = "One or more actions were skipped."


def uuid_of(name: str) -> str:
    return str(uuid5(NAMESPACE_OID, name))


def nop(name: str, *parents: str, state: str = "PENDING", **flags: bool) -> Action:
    return Action(
        uuid=uuid_of(name),
        action_plan_id=0,
        action_type="nop",
        input_parameters={"message": name, **flags},
        state=state,
        parents=[uuid_of(parent) for parent in parents],
    )


def move(
    vm: str, source: str, to: str | None, *parents: str, room: Sequence[str] = (), kind: str = "live", name: str = ""
) -> Action:
    return replace(
        nop(name or vm, *parents),
        action_type="migrate",
        input_parameters={
            "resource_id": uuid_of(vm),
            "resource_name": vm,
            "migration_type": kind,
            "source_node": source,
            "destination_node": to,
        },
        needs_room_of=[uuid_of(parent) for parent in room],
    )


def service(name: str, host: str, state: str, *parents: str) -> Action:
    wanted = {"resource_id": host, "resource_name": host, "state": state, "disabled_reason": "watcher_disabled"}
    return replace(nop(name, *parents), action_type="change_nova_service_state", input_parameters=wanted)


@dataclass
class Scene:
    """A store in memory, a simulated cloud of a few hosts, and one virtual clock for all."""

    clock: VirtualClock
    cloud: SimulatedCloud
    store: Store
    driver: Any
    numbers: Any

    @classmethod
    def of(cls, folder: Path, hosts: Mapping[str, int], vms: Mapping[str, tuple[str, int]]) -> "Scene":
        """Hosts with so many vCPUs; instances on a host with so many."""
        host_rows = {
            "uuid": [uuid_of(name) for name in hosts],
            "hostname": list(hosts),
            "vcpus": [float(size) for size in hosts.values()],
            "memory_mb": [1e6] * len(hosts),
            "disk_gb": [1e6] * len(hosts),
        }
        vm_rows = {
            "uuid": [uuid_of(name) for name in vms],
            "name": list(vms),
            "node": [uuid_of(host) for host, _ in vms.values()],
            "vcpus": [float(size) for _, size in vms.values()],
            "memory_mb": [16_384.0] * len(vms),
            "disk_gb": [10.0] * len(vms),
        }
        write_model(ClusterModel.from_arrow(pa.table(host_rows), pa.table(vm_rows)), folder / "estate")
        clock = VirtualClock(START)
        spec = CloudSpec(start_s=START, history_s=0.0, estate=str(folder / "estate"), as_assumed=True)
        cloud = SimulatedCloud(spec, now=clock.now)
        store = Store(None, now=lambda: datetime.fromtimestamp(clock.now(), UTC))
        store.create(Goal(uuid=uuid_of("goal"), name="goal", display_name="goal"))
        store.create(Strategy(uuid=uuid_of("strategy"), name="strategy", display_name="strategy", goal_id=1))
        store.create(Audit(uuid=uuid_of("audit"), name="audit", audit_type="ONESHOT", state="SUCCEEDED", goal_id=1))
        return cls(clock, cloud, store, SimulatedDriver(local_call(cloud)), count(1))

    def plan(self, *actions: Action, state: str = "PENDING") -> str:
        number = next(self.numbers)
        plan = ActionPlan(uuid=uuid_of(f"plan {number}"), audit_id=1, strategy_id=1, state=state)
        stored = self.store.create(plan)
        self.store.create_many([replace(action, action_plan_id=stored.id) for action in actions])
        return plan.uuid

    @property
    def port(self) -> StorePort:
        return StorePort.direct(self.store)

    @property
    def tools(self) -> Tools:
        return Tools(self.driver, self.clock, self.clock)

    async def run(self, plan: str, **how: Any) -> ActionPlan:
        options = {"owner": "me", "handlers": HANDLERS, "tools": self.tools, "limits": Limits(2, 20), **how}
        return await run_plan(self.port, plan, **options)

    def action(self, name: str) -> Action:
        return self.store.get(Action, uuid_of(name))

    def states(self, *names: str) -> list[str]:
        return [self.action(name).state for name in names]

    def where(self, vm: str) -> str:
        return self.cloud.servers([uuid_of(vm)])[uuid_of(vm)].host

    def enabled(self, host: str) -> bool:
        found = self.cloud.service(host)
        assert found is not None
        return found.enabled

    def break_next(self, vm: str, kind: str = "migration_fails") -> None:
        self.cloud.inject(Fault(kind, uuid_of(vm)))

    def trips(self) -> list[tuple[str, str]]:
        return [(trip.source, trip.destination) for trip in self.cloud.all_migrations()]


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """Four hosts of 8 vCPUs; h1 is full with four instances, h2 has two, h3 and h4 none."""
    vms = {f"a{n}": ("h1", 2) for n in range(4)} | {f"b{n}": ("h2", 2) for n in range(2)}
    return Scene.of(tmp_path, {"h1": 8, "h2": 8, "h3": 8, "h4": 8}, vms)


# -- a life in good health ------------------------------------------------------------------------------------


async def test_a_plan_is_run_to_its_end(scene: Scene) -> None:
    plan = scene.plan(
        nop("hello"),
        move("a0", "h1", "h3", "hello"),
        move("a1", "h1", None, "hello", kind="cold"),
        service("off", "h4", "disabled", "a0", "a1"),
    )
    done = await scene.run(plan)
    assert (done.state, done.hostname, done.status_message) == ("SUCCEEDED", "me", None)
    assert scene.states("hello", "a0", "a1", "off") == ["SUCCEEDED"] * 4
    assert scene.where("a0") == "h3"
    assert scene.where("a1") != "h1"
    assert not scene.enabled("h4")
    released = scene.store.get(ActionPlan, plan)
    assert (released.owner, released.lease_until) == (None, None)
    happened = [(event.event, event.new_state) for event in scene.store.events(record_uuid=uuid_of("a0"))]
    assert happened[-2:] == [("begin", "ONGOING"), ("succeed", "SUCCEEDED")]
    first, then = scene.action("a0"), scene.action("off")
    assert first.started_at is not None
    assert first.finished_at is not None
    assert then.started_at is not None
    assert first.started_at < first.finished_at <= then.started_at


async def test_everything_is_written_before_the_cloud_is_asked(scene: Scene) -> None:
    plan = scene.plan(move("a0", "h1", "h3"), service("off", "h4", "disabled"))
    seen = []

    async def spy(method: str, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        if method in {"migrate", "set_service"}:
            name = "a0" if method == "migrate" else "off"
            seen.append((method, scene.store.get(ActionPlan, plan).state, scene.action(name).state))
        return await local_call(scene.cloud)(method, arguments, named)

    scene.driver = SimulatedDriver(spy)
    await scene.run(plan)
    assert sorted(seen) == [("migrate", "ONGOING", "ONGOING"), ("set_service", "ONGOING", "ONGOING")]


async def test_a_plan_without_actions_succeeds(scene: Scene) -> None:
    assert (await scene.run(scene.plan())).state == "SUCCEEDED"


async def test_a_plan_that_is_over_is_left_alone_and_one_not_started_is_refused(scene: Scene) -> None:
    done = scene.plan(nop("a"))
    await scene.run(done)
    assert (await scene.run(done)).state == "SUCCEEDED"
    cancelled = scene.plan(nop("b"), state="CANCELLED")
    assert (await scene.run(cancelled)).state == "CANCELLED"
    assert scene.states("b") == ["CANCELLED"]
    with pytest.raises(IllegalTransition, match="start it first"):
        await scene.run(scene.plan(nop("c"), state="RECOMMENDED"))


@pytest.mark.parametrize(("parents", "words"), [(["nobody"], "not in its plan"), (["b"], "cycle")])
async def test_a_broken_graph_fails_the_plan_and_nothing_starts(parents: list[str], words: str, scene: Scene) -> None:
    done = await scene.run(scene.plan(nop("a", *parents), nop("b", "a")))
    assert done.state == "FAILED"
    assert words in (done.status_message or "")
    assert scene.states("a", "b") == ["CANCELLED", "CANCELLED"]


# -- texts and states -----------------------------------------------------------------------------------------


class Odd:
    """A handler by somebody who did not read the rules."""

    action_type = "odd"
    description = "odd"
    schema = HANDLERS["nop"].schema

    def __init__(self, tools: Tools) -> None:
        self.tools = tools

    async def pre_condition(self, wanted: Any) -> None:
        if wanted.fail_pre_condition:
            raise KeyError("oops")

    async def execute(self, wanted: Any, *, asked_at: float | None) -> None:
        if wanted.fail_execute:
            raise ZeroDivisionError

    async def post_condition(self, wanted: Any) -> None:
        if wanted.fail_post_condition:
            raise OSError("oops")

    async def revert(self, wanted: Any) -> None:
        raise LookupError

    async def abort(self, wanted: Any) -> bool:
        return False


SELF = uuid_of("x")


@pytest.mark.parametrize(
    ("kind", "wanted", "state", "text"),
    [
        ("nop", {}, "SUCCEEDED", None),
        (
            "nop",
            {"skip_pre_condition": True},
            "SKIPPED",
            "Action was skipped automatically: Skipped in pre_condition",
        ),
        (
            "nop",
            {"fail_pre_condition": True},
            "FAILED",
            "Action failed in pre_condition: Failed in pre_condition",
        ),
        ("nop", {"fail_execute": True}, "FAILED", f"Action failed in execute: The action {SELF} execution failed."),
        (
            "nop",
            {"fail_post_condition": True},
            "FAILED",
            "Action failed in post_condition: Failed in post_condition",
        ),
        ("nop", {"colour": "red"}, "FAILED", "Action failed in pre_condition: ValidationError"),
        ("evacuate", {}, "FAILED", "Action failed in pre_condition: Error loading plugin 'evacuate'"),
        ("odd", {"fail_pre_condition": True}, "FAILED", "Action failed in pre_condition: KeyError"),
        ("odd", {"fail_execute": True}, "FAILED", "Action failed in execute: ZeroDivisionError"),
        ("odd", {"fail_post_condition": True}, "FAILED", "Action failed in post_condition: OSError"),
    ],
)
async def test_every_way_an_action_ends_has_its_text(
    kind: str, wanted: dict[str, Any], state: str, text: str | None, scene: Scene
) -> None:
    action = replace(nop("x", **wanted), action_type=kind)
    done = await scene.run(scene.plan(action, nop("child", "x")), handlers={**HANDLERS, "odd": Odd})
    assert (scene.action("x").state, scene.action("x").status_message) == (state, text)
    assert scene.states("child") == ["SUCCEEDED"]  # whatever happened to its parent
    assert done.state == ("FAILED" if state == "FAILED" else "SUCCEEDED")
    said = {"SUCCEEDED": None, "SKIPPED": SKIPPED_SOME, "FAILED": f"action {uuid_of('x')} ({kind}): {text}"}
    assert done.status_message == said[state]


async def test_what_a_person_skipped_does_nothing(scene: Scene) -> None:
    plan = scene.plan(move("a0", "h1", "h3"), nop("child", "a0"))
    scene.store.transition(Action, uuid_of("a0"), "skip", message="Action skipped by user.")
    done = await scene.run(plan)
    assert (done.state, done.status_message) == ("SUCCEEDED", SKIPPED_SOME)
    assert (scene.action("a0").state, scene.action("a0").status_message) == ("SKIPPED", "Action skipped by user.")
    assert scene.trips() == []
    assert scene.states("child") == ["SUCCEEDED"]


FLAGS = ["skip_pre_condition", "fail_pre_condition", "fail_execute", "fail_post_condition", None, None]


@st.composite
def graphs(draw: st.DrawFn) -> list[tuple[set[int], str | None]]:
    """Parents and flag of each action."""
    numbers = range(draw(st.integers(1, 9)))
    parents = [draw(st.sets(st.integers(0, number - 1), max_size=3)) if number else set() for number in numbers]
    return [(own, draw(st.sampled_from(FLAGS))) for own in parents]


def test_any_plan_ends_with_every_action_final_and_parents_before_children(scene: Scene) -> None:
    numbers = count()

    @given(graphs())
    @settings(max_examples=12, deadline=None)
    def check(graph: list[tuple[set[int], str | None]]) -> None:
        run, seen = next(numbers), max((event.id for event in scene.store.events(limit=10**6)), default=0)
        actions = [nop(f"{run}.{n}", *(f"{run}.{p}" for p in own)) for n, (own, _) in enumerate(graph)]
        for action, (_, flag) in zip(actions, graph, strict=True):
            action.input_parameters.update({flag: True} if flag else {})
        done = asyncio.run(scene.run(scene.plan(*actions)))
        rows = scene.store.list(Action, {"action_plan_id": done.id})
        ends = {"succeed", "skip", "refuse", "fail"}
        final = [event.record_uuid for event in scene.store.events(seen) if event.event in ends]
        at = {action.uuid: final.index(action.uuid) for action in rows}
        assert all(at[parent] < at[action.uuid] for action in rows for parent in action.parents)
        assert {action.state for action in rows} <= {"SUCCEEDED", "FAILED", "SKIPPED"}
        assert (done.state == "FAILED") == any(action.state == "FAILED" for action in rows)
        said, failed = done.status_message or "", [action for action in rows if action.state == "FAILED"]
        assert said.endswith(SKIPPED_SOME) == any(action.state == "SKIPPED" for action in rows)
        assert ("failed in" in said) == bool(failed)
        if failed:
            first = min(failed, key=lambda action: action.finished_at or datetime.max.replace(tzinfo=UTC))
            assert said.startswith(f"action {first.uuid} (nop): {first.status_message}")
            assert (f"; {len(failed) - 1} more failed" in said) == (len(failed) > 1)

    check()


async def test_a_long_failure_leaves_room_for_what_else_happened(scene: Scene) -> None:
    kind = "unheard_of_" * 20
    plan = scene.plan(*(replace(nop(name), action_type=kind) for name in ("x", "y")), nop("z", skip_pre_condition=True))
    said = (await scene.run(plan)).status_message or ""
    assert said.startswith(f"action {uuid_of('x')} (unheard_of_")
    assert said.endswith(f"…; 1 more failed; {SKIPPED_SOME}")
    assert len(said) == 255


async def test_the_end_of_a_plan_replaces_what_was_said_of_it_before(scene: Scene) -> None:
    plan = scene.plan(nop("bad", fail_execute=True))
    scene.store.update(ActionPlan, plan, {"status_message": "host h9 is left out"})
    done = await scene.run(plan)
    assert done.status_message == f"action {uuid_of('bad')} (nop): {scene.action('bad').status_message}"


# -- limits ---------------------------------------------------------------------------------------------------


def most_at_once(trips: Sequence[Migration]) -> tuple[int, int]:
    """The most migrations that ever ran side by side, in total and on one host."""
    total = on_host = 0
    for start in (trip.started_at for trip in trips):
        running = [t for t in trips if t.started_at <= start < (t.ended_at or float("inf"))]
        total = max(total, len(running))
        hosts = [host for t in running for host in (t.source, t.destination)]
        on_host = max(on_host, *(hosts.count(host) for host in hosts))
    return total, on_host


@pytest.mark.parametrize("limits", [Limits(1, 20), Limits(2, 3), Limits(3, 100)])
async def test_the_cloud_never_sees_more_migrations_than_allowed(limits: Limits, tmp_path: Path) -> None:
    hosts = {f"h{n}": 40 for n in range(8)}
    vms = {f"v{n}": (f"h{n % 4}", 2) for n in range(24)}
    scene = Scene.of(tmp_path, hosts, vms)
    moves = [move(vm, host, f"h{4 + number % 4}") for number, (vm, (host, _)) in enumerate(vms.items())]
    done = await scene.run(scene.plan(*moves), limits=limits)
    assert done.state == "SUCCEEDED"
    total, on_host = most_at_once(scene.cloud.all_migrations())
    assert on_host <= limits.migrations_per_host
    assert total == min(limits.migrations_total, 4 * limits.migrations_per_host)


# -- things go wrong ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("migration_fails", "failed"),
        ("migration_hangs", "has not arrived after 15 minutes"),
        ("server_vanishes", "vanished on the way"),
    ],
)
async def test_a_fault_ends_in_an_honest_state(kind: str, words: str, scene: Scene) -> None:
    plan = scene.plan(move("a0", "h1", "h3"), move("a1", "h1", "h4"))
    if kind == "server_vanishes":
        scene.cloud.inject(Fault(kind, uuid_of("a0"), at=START + 6))
    else:
        scene.break_next("a0", kind)
    done = await scene.run(plan)
    assert done.state == "FAILED"
    assert scene.states("a0", "a1") == ["FAILED", "SUCCEEDED"]
    text = scene.action("a0").status_message or ""
    assert text.startswith("Action failed in execute: ")
    assert words in text
    assert all(trip.status != "running" for trip in scene.cloud.all_migrations())
    assert len(scene.trips()) == 2


async def test_a_host_that_dies_fails_what_was_on_its_way_there(scene: Scene) -> None:
    plan = scene.plan(move("a0", "h1", "h3"), move("a1", "h1", "h4"), move("b0", "h2", "h3", "a0"))
    scene.cloud.inject(Fault("host_dies", "h3", at=START + 6))
    done = await scene.run(plan)
    assert done.state == "FAILED"
    assert scene.states("a0", "a1", "b0") == ["FAILED", "SUCCEEDED", "FAILED"]
    assert "h3" in (scene.action("b0").status_message or "")
    assert scene.where("a0") == "h1"


async def test_an_outage_of_the_cloud_only_costs_time(scene: Scene) -> None:
    async def away(method: str, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        if START + 3 < scene.clock.now() < START + 200:
            raise CloudUnavailable("no route to host")
        return await local_call(scene.cloud)(method, arguments, named)

    scene.driver = SimulatedDriver(away)
    plan = scene.plan(move("a0", "h1", "h3"), move("a1", "h1", "h3", "a0"), service("off", "h4", "disabled", "a0"))
    assert (await scene.run(plan)).state == "SUCCEEDED"
    assert len(scene.trips()) == 2


# -- a second look for room -----------------------------------------------------------------------------------


@pytest.fixture
def tight(tmp_path: Path) -> Scene:
    """h2 is full until its instances leave."""
    vms = {"in0": ("h1", 4), "in1": ("h1", 4), "out0": ("h2", 4), "out1": ("h2", 4)}
    return Scene.of(tmp_path, {"h1": 8, "h2": 8, "h3": 8}, vms)


async def test_what_has_no_room_because_a_parent_failed_is_skipped(tight: Scene) -> None:
    plan = tight.plan(
        move("out0", "h2", "h3"),
        move("in0", "h1", "h2", "out0", room=["out0"]),
        nop("after", "in0"),
    )
    tight.break_next("out0")
    done = await tight.run(plan)
    assert tight.states("out0", "in0", "after") == ["FAILED", "SKIPPED", "SUCCEEDED"]
    text = tight.action("in0").status_message or ""
    assert text.startswith(f"Action was skipped automatically: host h2 has no room for instance {uuid_of('in0')}: ")
    assert f"action {uuid_of('out0')} (migrate of out0) is FAILED" in text
    assert done.state == "FAILED"
    assert (done.status_message or "").startswith(
        f"action {uuid_of('out0')} (migrate of out0): Action failed in execute: "
    )
    assert (done.status_message or "").endswith(f"; {SKIPPED_SOME}")
    assert tight.trips() == [("h2", "h3")]


async def test_what_has_room_all_the_same_is_done(tight: Scene) -> None:
    plan = tight.plan(move("out0", "h2", "h3"), move("in0", "h1", "h2", "out0", room=["out0"]))
    tight.break_next("out0")
    tight.cloud.inject(Fault("server_vanishes", uuid_of("out1")))
    await tight.run(plan)
    assert tight.states("out0", "in0") == ["FAILED", "SUCCEEDED"]
    assert tight.where("in0") == "h2"


async def test_a_skipped_parent_makes_no_room_either(tight: Scene) -> None:
    plan = tight.plan(move("out0", "h2", "h3"), move("in0", "h1", "h2", "out0", room=["out0"]))
    tight.store.transition(Action, uuid_of("out0"), "skip", message="Action skipped by user.")
    done = await tight.run(plan)
    assert tight.states("out0", "in0") == ["SKIPPED", "SKIPPED"]
    assert done.state == "SUCCEEDED"


async def test_of_two_that_could_take_the_last_room_one_does(tight: Scene) -> None:
    plan = tight.plan(
        move("out0", "h2", "h3"),
        move("out1", "h2", "h3"),
        move("in0", "h1", "h2", "out0", "out1", room=["out0"]),
        move("in1", "h1", "h2", "out0", "out1", room=["out0"]),
    )
    tight.break_next("out0")
    await tight.run(plan, limits=Limits(4, 20))
    assert sorted(tight.states("in0", "in1")) == ["SKIPPED", "SUCCEEDED"]
    assert len(tight.trips()) == 3


async def test_what_will_not_fit_itself_takes_no_room_from_others(tmp_path: Path) -> None:
    vms = {"small": ("h1", 3), "large": ("h1", 5), "out0": ("h2", 5), "out1": ("h2", 3)}
    scene = Scene.of(tmp_path, {"h1": 8, "h2": 8, "h3": 8}, vms)
    plan = scene.plan(
        move("out0", "h2", "h3"),
        move("out1", "h2", "h3"),
        move("small", "h1", "h2", "out0", "out1", room=["out0"]),
        move("large", "h1", "h2", "out0", "out1", room=["out0"]),
    )
    scene.break_next("out0")
    await scene.run(plan, limits=Limits(4, 20))
    assert scene.states("small", "large") == ["SUCCEEDED", "SKIPPED"]


async def test_a_slow_answer_about_room_is_not_given_to_two(tight: Scene) -> None:
    async def room(action: Action, begun: Callable[[], Sequence[Action]]) -> str | None:
        others = [other for other in begun() if other.uuid in {uuid_of("in0"), uuid_of("in1")}]
        await tight.clock.sleep(1)
        return "one is enough" if others else None

    plan = tight.plan(
        nop("bad", fail_execute=True),
        move("out1", "h2", "h3"),
        move("in0", "h1", "h2", "bad", "out1", room=["bad"]),
        move("in1", "h1", "h2", "bad", "out1", room=["bad"]),
    )
    await tight.run(plan, room=room)
    assert tight.states("in0", "in1") == ["SUCCEEDED", "SKIPPED"]


# -- no host is disabled that still holds what should have left -----------------------------------------------


async def test_a_host_that_could_not_be_emptied_is_not_disabled(scene: Scene) -> None:
    plan = scene.plan(
        move("b0", "h2", "h3"),
        move("b1", "h2", "h3"),
        nop("wait", "b0", "b1"),
        service("off", "h2", "disabled", "wait"),
    )
    scene.break_next("b1")
    done = await scene.run(plan)
    assert scene.states("b0", "b1", "wait", "off") == ["SUCCEEDED", "FAILED", "SUCCEEDED", "SKIPPED"]
    text = f"host h2 still holds instance {uuid_of('b1')}: action {uuid_of('b1')} (migrate of b1) is FAILED"
    assert scene.action("off").status_message == f"Action was skipped automatically: {text}"
    assert scene.enabled("h2")
    assert done.state == "FAILED"
    assert (done.status_message or "").startswith(f"action {uuid_of('b1')} (migrate of b1): Action failed in execute: ")
    assert (done.status_message or "").endswith(f"; {SKIPPED_SOME}")


async def test_a_host_whose_instance_vanished_is_empty_and_disabled(scene: Scene) -> None:
    plan = scene.plan(move("b0", "h2", "h3"), service("off", "h2", "disabled", "b0"))
    scene.cloud.inject(Fault("server_vanishes", uuid_of("b0"), at=START + 6))
    await scene.run(plan)
    assert scene.states("b0", "off") == ["FAILED", "SUCCEEDED"]
    assert not scene.enabled("h2")


async def test_a_host_is_disabled_before_it_is_drained(scene: Scene) -> None:
    plan = scene.plan(service("off", "h2", "disabled"), move("b0", "h2", "h3", "off"), move("b1", "h2", "h3", "off"))
    scene.break_next("b1")
    await scene.run(plan)
    assert scene.states("off", "b0", "b1") == ["SUCCEEDED", "SUCCEEDED", "FAILED"]
    assert not scene.enabled("h2")


# -- cancel ---------------------------------------------------------------------------------------------------


async def cancel_after(scene: Scene, plan: str, seconds: float) -> None:
    await scene.clock.sleep(seconds)
    scene.store.transition(ActionPlan, plan, "cancel")


async def test_cancel_lets_the_running_end_and_cancels_the_rest(scene: Scene) -> None:
    plan = scene.plan(move("a0", "h1", "h3"), move("a1", "h1", "h3", "a0"), nop("last", "a1"))
    done, _ = await asyncio.gather(scene.run(plan), cancel_after(scene, plan, 6))
    assert done.state == "CANCELLED"
    assert scene.states("a0", "a1", "last") == ["SUCCEEDED", "CANCELLED", "CANCELLED"]
    assert scene.trips() == [("h1", "h3")]


@pytest.mark.parametrize(("fails", "state"), [(False, "SUCCEEDED"), (True, "FAILED")])
async def test_a_cancel_that_finds_nothing_left_changes_nothing(fails: bool, state: str, scene: Scene) -> None:
    plan = scene.plan(move("a0", "h1", "h3"))
    if fails:
        scene.break_next("a0")
    done, _ = await asyncio.gather(scene.run(plan), cancel_after(scene, plan, 6))
    assert (done.state, *scene.states("a0")) == (state, state)


# -- what a plan disables only as long as it takes -------------------------------------------------------------


def closed_meanwhile(scene: Scene, *between: Action) -> str:
    """h4 is closed, everything of h1 goes where the cloud likes, h4 is opened again."""
    moves = [move("a0", "h1", None, "off"), move("a1", "h1", None, "off", "a0")]
    return scene.plan(
        service("off", "h4", "disabled"),
        *moves,
        *between,
        service("on", "h4", "enabled", "a0", "a1"),
        nop("last", "on"),
    )


@pytest.mark.parametrize("seconds", [1, 6, 20])
async def test_cancel_opens_what_the_plan_has_closed(seconds: float, scene: Scene) -> None:
    plan = closed_meanwhile(scene)
    done, _ = await asyncio.gather(scene.run(plan), cancel_after(scene, plan, seconds))
    assert done.state == "CANCELLED"
    assert scene.states("off", "a1", "on", "last") == ["SUCCEEDED", "CANCELLED", "SUCCEEDED", "CANCELLED"]
    assert scene.enabled("h4")


async def test_the_next_applier_opens_what_a_plan_cancelled_meanwhile_had_closed(scene: Scene) -> None:
    plan = closed_meanwhile(scene)
    await stop_after(scene, plan, 6)
    scene.store.transition(ActionPlan, plan, "cancel")
    assert not scene.enabled("h4")
    assert (await scene.run(plan)).state == "CANCELLED"
    assert scene.states("a0", "a1", "on") == ["SUCCEEDED", "CANCELLED", "SUCCEEDED"]
    assert scene.enabled("h4")


async def test_cancel_opens_nothing_that_the_plan_did_not_close(scene: Scene) -> None:
    scene.cloud.set_service("h4", enabled=False, reason="somebody works on it")
    plan = scene.plan(move("a0", "h1", None), service("on", "h4", "enabled", "a0"))
    done, _ = await asyncio.gather(scene.run(plan), cancel_after(scene, plan, 6))
    assert (done.state, *scene.states("a0", "on")) == ("CANCELLED", "SUCCEEDED", "CANCELLED")
    assert not scene.enabled("h4")


@pytest.mark.parametrize("cancelled", [False, True])
async def test_what_somebody_else_has_closed_stays_closed(cancelled: bool, scene: Scene) -> None:
    scene.cloud.set_service("h4", enabled=False, reason="somebody works on it")
    plan = closed_meanwhile(scene)
    running = asyncio.create_task(scene.run(plan))
    if cancelled:
        await cancel_after(scene, plan, 6)
    done = await running
    assert scene.states("off", "on") == ["SKIPPED", "CANCELLED" if cancelled else "SKIPPED"]
    assert cancelled or "there is nothing to undo: action" in (scene.action("on").status_message or "")
    assert done.state == ("CANCELLED" if cancelled else "SUCCEEDED")
    assert not scene.enabled("h4")


async def test_a_failed_move_keeps_nothing_closed(scene: Scene) -> None:
    plan = closed_meanwhile(scene, nop("bad", "off", fail_execute=True))
    scene.break_next("a0")
    done = await scene.run(plan)
    assert done.state == "FAILED"
    assert scene.states("off", "a0", "bad", "on") == ["SUCCEEDED", "FAILED", "FAILED", "SUCCEEDED"]
    assert scene.enabled("h4")


@pytest.mark.parametrize("late", [False, True])
async def test_rollback_keeps_nothing_closed(late: bool, scene: Scene) -> None:
    bad = nop("bad", "on" if late else "a0", fail_execute=True)
    plan = scene.plan(
        service("off", "h4", "disabled"),
        move("a0", "h1", None, "off"),
        service("on", "h4", "enabled", "a0"),
        bad,
    )
    done = await scene.run(plan, rollback=True)
    assert done.state == "FAILED"
    assert scene.states("off", "a0", "bad") == ["CANCELLED", "CANCELLED", "FAILED"]
    assert scene.where("a0") == "h1"
    assert scene.enabled("h4")


# -- rollback -------------------------------------------------------------------------------------------------


async def test_rollback_undoes_the_last_first_and_starts_nothing_new(scene: Scene) -> None:
    plan = scene.plan(
        move("a0", "h1", "h3"),
        move("a1", "h1", "h3", "a0"),
        move("b0", "h2", "h4", "a1"),
        nop("never", "b0"),
    )
    scene.break_next("b0")
    done = await scene.run(plan, rollback=True)
    assert scene.states("a0", "a1", "b0", "never") == ["CANCELLED", "CANCELLED", "FAILED", "CANCELLED"]
    why = f"action {uuid_of('b0')} (migrate of b0) failed"
    assert scene.action("a0").status_message == f"Rolled back: {why}"
    assert scene.action("never").status_message == f"Not started: {why} and the plan was rolled back"
    assert (done.state, done.status_message) == ("FAILED", f"Rolled back because {why}: 2 undone")
    assert [scene.where(vm) for vm in ("a0", "a1", "b0")] == ["h1", "h1", "h2"]
    back = [trip.server_id for trip in scene.cloud.all_migrations()][3:]
    assert back == [uuid_of("a1"), uuid_of("a0")]


async def test_rollback_lets_running_actions_end_before_it_undoes_them(scene: Scene) -> None:
    plan = scene.plan(nop("bad", fail_execute=True), move("a0", "h1", "h3"))
    done = await scene.run(plan, rollback=True)
    assert scene.states("bad", "a0") == ["FAILED", "CANCELLED"]
    assert scene.trips() == [("h1", "h3"), ("h3", "h1")]
    assert done.state == "FAILED"


async def test_rollback_leaves_no_service_disabled_even_when_the_cloud_refuses_to_move_back_to_it(
    scene: Scene,
) -> None:
    plan = scene.plan(
        service("off", "h2", "disabled"), move("b0", "h2", "h3", "off"), nop("bad", "b0", fail_execute=True)
    )
    await scene.run(plan, rollback=True)
    assert scene.states("off", "b0", "bad") == ["CANCELLED", "CANCELLED", "FAILED"]
    assert scene.enabled("h2")
    assert scene.where("b0") == "h2"


async def test_rollback_enables_what_was_disabled_by_a_request_whose_answer_was_lost(scene: Scene) -> None:
    async def answers_lost(method: str, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        answer = await local_call(scene.cloud)(method, arguments, named)
        if scene.enabled("h2") is False and scene.clock.now() < START + 1_000:
            raise CloudUnavailable("connection reset")
        return answer

    scene.driver = SimulatedDriver(answers_lost)
    done = await scene.run(scene.plan(service("off", "h2", "disabled")), rollback=True)
    assert scene.states("off") == ["FAILED"]
    assert (scene.action("off").status_message or "").endswith("; enabled again")
    assert scene.enabled("h2")
    assert done.state == "FAILED"


async def test_what_cannot_be_undone_is_said(scene: Scene) -> None:
    odd = replace(nop("odd"), action_type="odd")
    plan = scene.plan(odd, move("a0", "h1", "h3", "odd"), nop("bad", "a0", fail_execute=True))
    done = await scene.run(plan, rollback=True, handlers={**HANDLERS, "odd": Odd})
    assert scene.states("odd", "a0", "bad") == ["FAILED", "CANCELLED", "FAILED"]
    assert scene.action("odd").status_message == "Rollback failed: LookupError"
    assert (done.status_message or "").endswith("1 of 2 could not be undone")


async def test_without_rollback_nothing_is_undone(scene: Scene) -> None:
    plan = scene.plan(move("a0", "h1", "h3"), nop("bad", "a0", fail_execute=True), move("a1", "h1", "h3", "bad"))
    done = await scene.run(plan)
    text = f"action {uuid_of('bad')} (nop): {scene.action('bad').status_message}"
    assert (done.state, done.status_message) == ("FAILED", text)
    assert scene.states("a0", "bad", "a1") == ["SUCCEEDED", "FAILED", "SUCCEEDED"]


# -- interrupted and resumed ----------------------------------------------------------------------------------


async def stop_after(scene: Scene, plan: str, seconds: float, **how: Any) -> None:
    task = asyncio.create_task(scene.run(plan, **how))
    await scene.clock.sleep(seconds)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("interruptions", [[0], [1], [4], [6], [9], [13], [4, 4, 4], [1] * 12])
async def test_an_interrupted_plan_goes_on_and_asks_for_nothing_twice(interruptions: list[float], scene: Scene) -> None:
    plan = scene.plan(
        service("off", "h1", "disabled"),
        move("a0", "h1", "h3", "off"),
        move("a1", "h1", "h3", "a0"),
        move("a2", "h1", "h4", "off"),
        nop("last", "a1", "a2"),
    )
    for seconds in interruptions:
        await stop_after(scene, plan, seconds, owner=f"until {scene.clock.now()}")
    assert (await scene.run(plan)).state == "SUCCEEDED"
    assert scene.states("off", "a0", "a1", "a2", "last") == ["SUCCEEDED"] * 5
    assert sorted(scene.trips()) == [("h1", "h3"), ("h1", "h3"), ("h1", "h4")]


async def test_a_migration_that_failed_while_nobody_looked_is_not_tried_again(scene: Scene) -> None:
    plan = scene.plan(move("a0", "h1", "h3"))
    scene.break_next("a0")
    await stop_after(scene, plan, 6)
    await scene.clock.sleep(300)
    done = await scene.run(plan)
    assert (done.state, *scene.states("a0")) == ("FAILED", "FAILED")
    assert len(scene.trips()) == 1


async def test_a_plan_cancelled_while_nobody_ran_it_is_cancelled_by_the_next(scene: Scene) -> None:
    plan = scene.plan(move("a0", "h1", "h3"), nop("last", "a0"))
    await stop_after(scene, plan, 6)
    scene.store.transition(ActionPlan, plan, "cancel")
    assert (await scene.run(plan)).state == "CANCELLED"
    assert scene.states("a0", "last") == ["SUCCEEDED", "CANCELLED"]


@pytest.mark.parametrize("seconds", range(20, 75, 5))
async def test_a_rollback_interrupted_anywhere_is_brought_to_its_end(seconds: float, scene: Scene) -> None:
    plan = scene.plan(
        service("off", "h1", "disabled"),
        move("a0", "h1", "h3", "off"),
        move("a1", "h1", "h4", "off"),
        nop("bad", "a0", "a1", fail_execute=True),
    )
    await stop_after(scene, plan, seconds, rollback=True)
    done = await scene.run(plan, rollback=True)
    assert done.state == "FAILED"
    assert scene.states("off", "a0", "a1", "bad") == ["CANCELLED", "CANCELLED", "CANCELLED", "FAILED"]
    assert sorted(scene.trips()) == [("h1", "h3"), ("h1", "h4"), ("h3", "h1"), ("h4", "h1")]
    assert scene.enabled("h1")


# -- claims ---------------------------------------------------------------------------------------------------


async def test_two_appliers_never_run_one_plan(scene: Scene) -> None:
    plan = scene.plan(move("a0", "h1", "h3"))
    first = asyncio.create_task(scene.run(plan, owner="first"))
    await scene.clock.sleep(1)
    with pytest.raises(Conflict, match="belongs to first"):
        await scene.run(plan, owner="second")
    assert (await first).state == "SUCCEEDED"


async def test_an_applier_that_lost_its_lease_stops_and_writes_nothing_more(scene: Scene) -> None:
    plan = scene.plan(move("a0", "h1", "h3"), move("a1", "h1", "h3", "a0"))
    written: list[float] = []

    async def noting(method: str, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        answer = await scene.port._call(method, arguments, named)
        if method == "transitions":
            written.extend(scene.clock.now() for result in answer if not isinstance(result, Exception))
        return answer

    options: dict[str, Any] = {"handlers": HANDLERS, "tools": scene.tools, "limits": Limits(2, 20)}
    first = asyncio.create_task(run_plan(StorePort(noting), plan, owner="twin", lease_s=600.0, **options))
    await scene.clock.sleep(6)
    second = asyncio.create_task(scene.run(plan, owner="twin"))  # the same name twice: the newer claim wins
    with pytest.raises(Conflict, match="epoch"):
        await first
    assert (await second).state == "SUCCEEDED"
    assert scene.states("a0", "a1") == ["SUCCEEDED", "SUCCEEDED"]
    assert len(scene.trips()) == 2
    assert max(written) < START + 6


async def test_a_lease_is_renewed_for_as_long_as_the_plan_takes(scene: Scene) -> None:
    sleep = replace(nop("sleep"), action_type="sleep", input_parameters={"duration": 600})
    plan = scene.plan(sleep)
    running = asyncio.create_task(scene.run(plan, lease_s=30.0))
    for _ in range(11):
        await scene.clock.sleep(50)
        assert scene.store.claimable(ActionPlan, ["ONGOING"]) == []
    assert (await running).state == "SUCCEEDED"


# -- serving --------------------------------------------------------------------------------------------------


async def serving(scene: Scene, until: Callable[[], bool], wake: asyncio.Event | None = None, **how: Any) -> None:
    options = {"handlers": HANDLERS, "tools": scene.tools, "limits": Limits(2, 20), "idle_s": 10.0, **how}
    loop = asyncio.create_task(serve_plans(scene.port, wake=wake or asyncio.Event(), **{"owner": "me", **options}))
    while not until() and not loop.done():
        await scene.clock.sleep(1)
    loop.cancel()
    results = await asyncio.gather(loop, return_exceptions=True)
    assert isinstance(results[0], asyncio.CancelledError)


def all_over(scene: Scene) -> bool:
    return all(plan.state in {"SUCCEEDED", "FAILED", "CANCELLED"} for plan in scene.store.list(ActionPlan))


async def test_plans_are_served_oldest_first_one_at_a_time(scene: Scene) -> None:
    plans = [scene.plan(move(f"a{n}", "h1", "h3")) for n in range(3)]
    await serving(scene, lambda: all_over(scene))
    events = [e for e in scene.store.events() if e.record_kind == "action_plan" and e.event in {"run", "succeed"}]
    assert [(e.record_uuid, e.event) for e in events] == [(p, e) for p in plans for e in ("run", "succeed")]


async def test_two_workers_share_the_limits(scene: Scene) -> None:
    for n in range(4):
        scene.plan(move(f"a{n}", "h1", "h3"))
    await serving(scene, lambda: all_over(scene), workers=4, limits=Limits(1, 20))
    assert most_at_once(scene.cloud.all_migrations()) == (1, 1)
    assert len(scene.trips()) == 4


async def test_a_started_plan_is_taken_as_soon_as_the_bell_rings(scene: Scene) -> None:
    wake = asyncio.Event()

    async def later() -> float:
        await scene.clock.sleep(5)
        scene.plan(nop("a"))
        wake.set()
        return scene.clock.now()

    _, rung = await asyncio.gather(
        serving(scene, lambda: bool(scene.store.count(ActionPlan)) and all_over(scene), wake, idle_s=1e6), later()
    )
    started = scene.action("a").started_at
    assert started is not None
    assert started.timestamp() == rung


async def test_the_plan_of_a_dead_applier_is_taken_over_when_its_lease_is_over(scene: Scene) -> None:
    plan = scene.plan(move("a0", "h1", "h3"))
    scene.store.claim(ActionPlan, plan, "the dead one", 60)
    scene.store.transition(ActionPlan, plan, "run")
    await serving(scene, lambda: all_over(scene))
    assert scene.states("a0") == ["SUCCEEDED"]
    started = scene.action("a0").started_at
    assert started is not None
    assert START + 60 <= started.timestamp() <= START + 71


async def test_an_applier_that_comes_back_under_its_name_goes_on_at_once(scene: Scene) -> None:
    plan = scene.plan(move("a0", "h1", "h3"))
    scene.store.claim(ActionPlan, plan, "me", 3_600)
    await serving(scene, lambda: all_over(scene))
    started = scene.action("a0").started_at
    assert started is not None
    assert started.timestamp() == START


async def test_trouble_with_the_store_ends_neither_the_loop_nor_the_plan(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    scene.plan(move("a0", "h1", "h3"), nop("last", "a0"))
    plain = StorePort.direct(scene.store)

    async def call(method: str, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        if scene.clock.now() < START + 5 and (method == "claimable" or arguments[2:3] == ("succeed",)):
            raise OSError("the disk is full")
        if START + 12 < scene.clock.now() < START + 20:
            raise OSError("the disk is full")
        return await plain._call(method, arguments, named)

    options: dict[str, Any] = {"handlers": HANDLERS, "tools": scene.tools, "limits": Limits(2, 20)}
    loop = asyncio.create_task(
        serve_plans(StorePort(call), "me", wake=asyncio.Event(), idle_s=3.0, lease_s=9.0, **options)
    )
    while not all_over(scene) and not loop.done():
        await scene.clock.sleep(1)
    loop.cancel()
    await asyncio.gather(loop, return_exceptions=True)
    assert scene.states("a0", "last") == ["SUCCEEDED", "SUCCEEDED"]
    assert len(scene.trips()) == 1
    assert "plans could not be read" in caplog.text
