"""Action handlers skip, fail and succeed as Watcher's do, look before they ask, and ask once."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from trimtab.platform.actions.change_nova_service_state import ChangeNovaServiceState
from trimtab.platform.actions.migrate import Migrate
from trimtab.platform.actions.nop import Nop
from trimtab.platform.actions.sleep import Sleep
from trimtab.platform.clocks import VirtualClock
from trimtab.platform.contracts import Migration, Tools
from trimtab.platform.errors import ActionFailed, ActionSkipped, CloudUnavailable
from trimtab.platform.plugins import load
from trimtab.platform.watch import Watch

VM = "00000000-0000-4000-8000-000000000001"
VM2 = "00000000-0000-4000-8000-000000000002"
START = 1_700_000_000.0


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock(START)


@pytest.fixture
def cloud(memory_cloud: Any, clock: VirtualClock) -> Any:
    return memory_cloud(clock, {"h1": 4, "h2": 4, "h3": 1}, {VM: "h1", VM2: "h3"})


@pytest.fixture
def tools(cloud: Any, clock: VirtualClock) -> Tools:
    return Tools(cloud, clock, clock)


def to(host: str | None, kind: str = "live", vm: str = VM) -> Any:
    wanted = {"resource_id": vm, "migration_type": kind, "source_node": "h1", "destination_node": host}
    return Migrate.schema.model_validate(wanted)


async def whole_life(handler: Any, wanted: Any) -> None:
    await handler.pre_condition(wanted)
    await handler.execute(wanted, asked_at=None)
    await handler.post_condition(wanted)


# -- what is on the wire ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("handler", "action_type", "words", "required"),
    [
        (Nop, "nop", "Logging a NOP message", ["message"]),
        (Sleep, "sleep", "Wait for a given interval in seconds.", ["duration"]),
        (
            Migrate,
            "migrate",
            "Moving a VM instance from source_node to destination_node",
            ["resource_id", "migration_type", "source_node"],
        ),
        (
            ChangeNovaServiceState,
            "change_nova_service_state",
            (
                "Disables or enables the nova-compute service.A disabled nova-compute service can not be selected by "
                "the nova for future deployment of new server."
            ),
            ["resource_id", "state"],
        ),
    ],
)
def test_handlers_are_found_by_their_wire_name_and_describe_themselves(
    handler: Any, action_type: str, words: str, required: list[str]
) -> None:
    schema = handler.schema.model_json_schema()
    assert load().actions[action_type] is handler
    assert (handler.action_type, handler.description) == (action_type, words)
    assert schema["required"] == required
    assert schema["additionalProperties"] is False


@pytest.mark.parametrize(
    ("handler", "wanted"),
    [
        (Nop, {}),
        (Nop, {"message": 7}),
        (Nop, {"message": "hi", "volume": 11}),
        (Sleep, {"duration": -1}),
        (Sleep, {"duration": "inf"}),
        (Migrate, {"resource_id": "not-a-uuid", "migration_type": "live", "source_node": "h1"}),
        (Migrate, {"resource_id": VM, "migration_type": "teleport", "source_node": "h1"}),
        (Migrate, {"resource_id": VM, "migration_type": "live"}),
        (ChangeNovaServiceState, {"resource_id": "x", "state": "asleep"}),
    ],
)
def test_wrong_parameters_are_refused(handler: Any, wanted: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        handler.schema.model_validate(wanted)


# -- nop and sleep -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flag", "error", "text"),
    [
        ("skip_pre_condition", ActionSkipped, "Skipped in pre_condition"),
        ("fail_pre_condition", ActionFailed, "Failed in pre_condition"),
        ("fail_execute", ActionFailed, ""),
        ("fail_post_condition", ActionFailed, "Failed in post_condition"),
    ],
)
async def test_nop_skips_and_fails_where_it_is_told(flag: str, error: type[Exception], text: str, tools: Tools) -> None:
    with pytest.raises(error) as raised:
        await whole_life(Nop(tools), Nop.schema.model_validate({"message": "hi", flag: True}))
    assert str(raised.value) == text
    await whole_life(Nop(tools), Nop.schema.model_validate({"message": None}))


async def test_sleep_drops_the_fraction_of_a_second(tools: Tools, clock: VirtualClock) -> None:
    await whole_life(Sleep(tools), Sleep.schema.model_validate({"duration": 3.9}))
    assert clock.now() == START + 3


# -- migrate: before -----------------------------------------------------------------------------------------------


async def test_migrate_skips_what_is_gone_or_has_left(tools: Tools) -> None:
    missing = "00000000-0000-4000-8000-0000000000ff"
    with pytest.raises(ActionSkipped, match=f"^Instance {missing} not found$"):
        await Migrate(tools).pre_condition(to("h2", vm=missing))
    with pytest.raises(ActionSkipped, match=rf"^Instance {VM2} is not running on source node h1 \(currently on h3\)$"):
        await Migrate(tools).pre_condition(to("h2", vm=VM2))


async def test_migrate_fails_before_it_asks_for_what_cannot_work(tools: Tools, cloud: Any) -> None:
    with pytest.raises(ActionFailed, match=r"^Destination node nowhere not found$"):
        await Migrate(tools).pre_condition(to("nowhere"))
    cloud.disabled["h2"] = "broken fan"
    with pytest.raises(ActionFailed, match=r"^Destination node h2 is not in enabled state$"):
        await Migrate(tools).pre_condition(to("h2"))
    cloud.status[VM] = "SHUTOFF"
    text = rf"^Live migration requires instance {VM} to be in ACTIVE status \(current status: SHUTOFF\)$"
    with pytest.raises(ActionFailed, match=text):
        await Migrate(tools).pre_condition(to("h3"))
    await Migrate(tools).pre_condition(to("h3", "cold"))


# -- migrate: on the way -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["live", "cold"])
@pytest.mark.parametrize("destination", ["h2", None])
async def test_migrate_brings_the_instance_there(
    kind: str, destination: str | None, tools: Tools, cloud: Any, clock: VirtualClock
) -> None:
    await whole_life(Migrate(tools), to(destination, kind))
    assert cloud.where[VM] == "h2"
    assert cloud.accepted == [("migrate", VM, "h2", kind)]
    assert START + 60 <= clock.now() <= START + 60 + tools.poll_s


async def test_what_has_arrived_is_not_asked_for(tools: Tools, cloud: Any) -> None:
    cloud.where[VM] = "h2"
    await Migrate(tools).execute(to("h2"), asked_at=START - 100)
    assert cloud.asked.get("migrate", 0) == 0


@pytest.mark.parametrize("asked_at", [None, START])
async def test_a_migration_under_way_is_waited_for(asked_at: float | None, tools: Tools, cloud: Any) -> None:
    await cloud.migrate(VM, "h2", live=True)
    await Migrate(tools).execute(to("h2"), asked_at=asked_at)
    assert cloud.where[VM] == "h2"
    assert len(cloud.trips) == 1


async def test_an_interrupted_try_that_failed_is_not_repeated(tools: Tools, cloud: Any) -> None:
    cloud.trips.append(Migration("1", VM, "h1", "h2", "failed", START - 50, START - 20, "no shared storage"))
    with pytest.raises(ActionFailed, match="failed: no shared storage"):
        await Migrate(tools).execute(to("h2"), asked_at=START - 51)
    assert cloud.asked.get("migrate", 0) == 0


async def test_failures_of_earlier_plans_do_not_count(tools: Tools, cloud: Any) -> None:
    cloud.trips.append(Migration("1", VM, "h1", "h2", "failed", START - 500, START - 400, "no shared storage"))
    await Migrate(tools).execute(to("h2"), asked_at=None)
    assert cloud.where[VM] == "h2"
    cloud.where[VM] = "h1"
    await Migrate(tools).execute(to("h2"), asked_at=tools.clock.now())
    assert len(cloud.trips) == 3


@pytest.mark.parametrize("late", [{"task"}, {"task", "record"}])
async def test_a_cloud_that_is_slow_to_show_what_it_accepted_is_not_asked_again(
    late: set[str], tools: Tools, cloud: Any, clock: VirtualClock
) -> None:
    class Slow(Watch):
        async def servers(self, ids: Any) -> dict[str, Any]:
            found = await super().servers(ids)
            hidden = "task" in late and clock.now() < START + 50
            return {one: server._replace(task_state="") if hidden else server for one, server in found.items()}

        async def migrations(self, server_id: str) -> list[Migration]:
            found = await super().migrations(server_id)
            return [] if "record" in late and clock.now() < START + 50 else found

    await Migrate(replace(tools, cloud=Slow(cloud))).execute(to("h2"), asked_at=None)
    assert cloud.asked["migrate"] == 1
    assert cloud.where[VM] == "h2"


async def test_a_failing_migration_ends_in_the_clouds_words(tools: Tools, cloud: Any) -> None:
    cloud.fate[VM] = "fails"
    with pytest.raises(ActionFailed, match=f"^Migration of instance {VM} to h2 failed: the hypervisor said no$"):
        await Migrate(tools).execute(to("h2"), asked_at=None)
    assert len(cloud.trips) == 1


async def test_an_instance_that_vanishes_on_the_way_is_a_failure(tools: Tools, cloud: Any) -> None:
    cloud.fate[VM] = "vanishes"
    with pytest.raises(ActionFailed, match="vanished on the way"):
        await Migrate(tools).execute(to("h2"), asked_at=None)


async def test_a_host_that_dies_is_a_failure(tools: Tools, cloud: Any, clock: VirtualClock) -> None:
    async def dies() -> None:
        await clock.sleep(30)
        cloud.dead.add("h2")

    accident = asyncio.create_task(dies())
    with pytest.raises(ActionFailed, match="a host is down"):
        await Migrate(tools).execute(to("h2"), asked_at=None)
    await accident
    assert clock.now() < START + 60


async def test_what_hangs_is_aborted_after_the_deadline(tools: Tools, cloud: Any, clock: VirtualClock) -> None:
    cloud.fate[VM] = "hangs"
    with pytest.raises(ActionFailed, match=f"^Instance {VM} has not arrived after 15 minutes$"):
        await Migrate(tools).execute(to("h2"), asked_at=None)
    assert [trip.status for trip in cloud.trips] == ["aborted"]
    assert START + 900 <= clock.now() <= START + 900 + 3 * tools.poll_s


async def test_a_cold_migration_that_hangs_is_said_to_be_still_under_way(tools: Tools, cloud: Any) -> None:
    cloud.fate[VM] = "hangs"
    with pytest.raises(ActionFailed, match="has not arrived after 15 minutes; the migration is still under way"):
        await Migrate(tools).execute(to("h2", "cold"), asked_at=None)
    assert cloud.asked.get("abort", 0) == 0


async def test_a_busy_instance_is_waited_for_and_then_asked_for(tools: Tools, cloud: Any) -> None:
    cloud.lasts_s = 20
    await cloud.migrate(VM, "h2", live=True)
    cloud.fate[VM] = "fails"  # so that somebody else's migration leaves it where it is
    wait = asyncio.create_task(Migrate(tools).execute(to("h3", "cold"), asked_at=None))
    await tools.clock.sleep(25)
    cloud.where.pop(VM2)  # makes room on h3
    cloud.fate.clear()
    await wait
    assert cloud.where[VM] == "h3"
    assert [trip.destination for trip in cloud.trips] == ["h2", "h3"]


async def test_a_refusal_that_stays_is_final(tools: Tools, cloud: Any, clock: VirtualClock) -> None:
    with pytest.raises(ActionFailed, match="h3 has no room"):
        await Migrate(tools).execute(to("h3"), asked_at=None)
    assert cloud.asked["migrate"] == 2
    assert clock.now() <= START + 2 * tools.poll_s


async def test_somewhere_else_by_now_is_a_failure_not_a_second_journey(tools: Tools, cloud: Any) -> None:
    cloud.where[VM] = "h3"
    with pytest.raises(ActionFailed, match="currently on h3"):
        await Migrate(tools).execute(to("h2"), asked_at=START - 60)
    assert cloud.trips == []


# -- a cloud that does not answer ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["lost request", "lost answer"])
@pytest.mark.parametrize("method", ["servers", "migrate", "migrations", "service"])
def test_whatever_call_is_lost_the_migration_happens_once(kind: str, method: str, memory_cloud: Any) -> None:
    async def story(nth_lost: int) -> None:
        clock = VirtualClock(START)
        cloud = memory_cloud(clock, {"h1": 4, "h2": 4}, {VM: "h1"})
        cloud.trouble = lambda asked, nth: kind if (asked, nth) == (method, nth_lost) else None
        await whole_life(Migrate(Tools(cloud, clock, clock)), to("h2"))
        assert cloud.where[VM] == "h2"
        assert len(cloud.trips) == 1

    for nth in (1, 2, 3, 5):
        asyncio.run(story(nth))


async def test_a_cloud_that_stays_away_is_asked_ever_more_rarely(tools: Tools, cloud: Any, clock: VirtualClock) -> None:
    cloud.trouble = lambda *_: "lost request"
    with pytest.raises(ActionFailed, match="has not arrived after 15 minutes: migrations: connection refused"):
        await Migrate(tools).execute(to("h2"), asked_at=None)
    assert cloud.asked["migrations"] < 60  # 180 without back-off
    with pytest.raises(CloudUnavailable):
        await Migrate(tools).pre_condition(to("h2"))


# -- migrate: after ------------------------------------------------------------------------------------------------


async def test_the_post_condition_looks_where_the_instance_is(tools: Tools, cloud: Any) -> None:
    with pytest.raises(ActionFailed, match="is on h1, not on h2"):
        await Migrate(tools).post_condition(to("h2"))
    with pytest.raises(ActionFailed, match="still on h1"):
        await Migrate(tools).post_condition(to(None))
    cloud.where[VM], cloud.status[VM] = "h2", "ERROR"
    with pytest.raises(ActionFailed, match="ERROR"):
        await Migrate(tools).post_condition(to("h2"))
    cloud.where.pop(VM)
    with pytest.raises(ActionFailed, match="gone"):
        await Migrate(tools).post_condition(to("h2"))


async def test_revert_brings_it_back_and_may_be_repeated(tools: Tools, cloud: Any) -> None:
    handler = Migrate(tools)
    await handler.execute(to("h2"), asked_at=None)
    half_way = asyncio.create_task(handler.revert(to("h2")))
    await tools.clock.sleep(30)
    half_way.cancel()
    await handler.revert(to("h2"))
    await handler.revert(to("h2"))
    assert cloud.where[VM] == "h1"
    assert [(trip.source, trip.destination) for trip in cloud.trips] == [("h1", "h2"), ("h2", "h1")]


async def test_abort_stops_a_live_migration_and_no_cold_one(tools: Tools, cloud: Any) -> None:
    await cloud.migrate(VM, "h2", live=False)
    assert not await Migrate(tools).abort(to("h2", "cold"))
    assert await Migrate(tools).abort(to("h2", "live"))
    assert cloud.trips[0].status == "aborted"


# -- change_nova_service_state -------------------------------------------------------------------------------------


def service(state: str, **more: str) -> Any:
    wanted = {"resource_id": "some-uuid", "resource_name": "h2", "state": state, **more}
    return ChangeNovaServiceState.schema.model_validate(wanted)


async def test_a_service_is_disabled_with_its_reason_and_enabled_again(tools: Tools, cloud: Any) -> None:
    handler = ChangeNovaServiceState(tools)
    await whole_life(handler, service("disabled", disabled_reason="watcher_disabled"))
    assert cloud.disabled == {"h2": "watcher_disabled"}
    with pytest.raises(ActionSkipped, match=r"^nova-compute service h2 is already in state disabled$"):
        await handler.pre_condition(service("disabled"))
    await handler.revert(service("disabled"))
    assert cloud.disabled == {}
    await handler.revert(service("enabled"))
    assert list(cloud.disabled) == ["h2"]


async def test_a_service_that_is_not_there_is_skipped(tools: Tools) -> None:
    handler = ChangeNovaServiceState(tools)
    with pytest.raises(ActionSkipped, match=r"^nova-compute service h9 not found$"):
        await handler.pre_condition(service("enabled", resource_name="h9"))
    nameless: Any = ChangeNovaServiceState.schema.model_validate({"resource_id": "h2", "state": "enabled"})
    with pytest.raises(ActionSkipped, match="resource_name"):
        await handler.pre_condition(nameless)


async def test_up_and_down_pass_the_schema_and_no_further(tools: Tools) -> None:
    handler = ChangeNovaServiceState(tools)
    await handler.pre_condition(service("up"))
    with pytest.raises(ActionFailed, match=r"^The target state is not defined$"):
        await handler.execute(service("up"), asked_at=None)


async def test_the_post_condition_sees_a_service_somebody_else_switched_back(tools: Tools, cloud: Any) -> None:
    handler = ChangeNovaServiceState(tools)
    await handler.execute(service("disabled"), asked_at=None)
    cloud.disabled.clear()
    with pytest.raises(ActionFailed, match="h2 should be disabled and is enabled"):
        await handler.post_condition(service("disabled"))


@pytest.mark.parametrize("kind", ["lost request", "lost answer"])
async def test_a_lost_request_to_a_service_is_repeated(kind: str, tools: Tools, cloud: Any) -> None:
    cloud.trouble = lambda method, nth: kind if method == "set_service" and nth == 1 else None
    await whole_life(ChangeNovaServiceState(tools), service("disabled"))
    assert cloud.accepted == [("disable", "h2")]


# -- many questions, one call --------------------------------------------------------------------------------------


async def test_questions_of_one_moment_become_one_call(cloud: Any) -> None:
    watch = Watch(cloud)
    one, same, two, none = await asyncio.gather(
        watch.server(VM), watch.server(VM), watch.server(VM2), watch.server("nobody")
    )
    assert one is not None
    assert (one.host, same, none) == ("h1", one, None)
    assert two is not None
    assert cloud.bulk == [[VM, VM2, "nobody"]]
    assert await watch.servers([VM, "nobody"]) == {VM: one}
    assert len(cloud.bulk) == 2


async def test_large_questions_are_cut(cloud: Any) -> None:
    ids = [f"server-{n}" for n in range(7)]
    assert await Watch(cloud, at_most=3).servers(ids) == {}
    assert cloud.bulk == [ids[:3], ids[3:6], ids[6:]]


async def test_everybody_who_asked_hears_of_the_trouble(cloud: Any) -> None:
    cloud.trouble = lambda _, nth: "lost request" if nth == 1 else None
    watch = Watch(cloud)
    answers = await asyncio.gather(watch.server(VM), watch.server(VM2), return_exceptions=True)
    assert [type(answer) for answer in answers] == [CloudUnavailable, CloudUnavailable]
    again = await watch.server(VM)
    assert again is not None


async def test_who_gives_up_takes_the_answer_from_nobody_else(cloud: Any) -> None:
    watch = Watch(cloud)
    impatient = asyncio.create_task(watch.server(VM))
    patient = asyncio.create_task(watch.server(VM))
    await asyncio.sleep(0)
    impatient.cancel()
    found = await patient
    assert found is not None
    assert found.host == "h1"


async def test_those_who_poll_meet_in_bulk_calls(memory_cloud: Any, clock: VirtualClock) -> None:
    vms = [f"00000000-0000-4000-8000-{n:012d}" for n in range(8)]
    cloud = memory_cloud(clock, {"h1": 20, "h2": 20}, dict.fromkeys(vms, "h1"))
    handler = Migrate(Tools(Watch(cloud), clock, clock))

    async def later(seconds: float, vm: str) -> None:
        await clock.sleep(seconds)
        await handler.execute(to("h2", vm=vm), asked_at=None)

    await asyncio.gather(*(later(number * 0.7, vm) for number, vm in enumerate(vms)))
    assert set(cloud.where.values()) == {"h2"}
    assert sum(map(len, cloud.bulk)) > 3 * len(cloud.bulk)
