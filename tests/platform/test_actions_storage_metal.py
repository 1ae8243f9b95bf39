"""Resize, stop, volume_migrate and change_node_power_state on the simulated cloud: skip, fail, ask once, look first."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from trimtab.platform.actions.change_node_power_state import ChangeNodePowerState
from trimtab.platform.actions.resize import Resize
from trimtab.platform.actions.stop import Stop
from trimtab.platform.actions.volume_migrate import VolumeMigrate
from trimtab.platform.clocks import VirtualClock
from trimtab.platform.contracts import MetalNode, Pool, Server, Tools, Volume
from trimtab.platform.errors import ActionFailed, ActionSkipped, CloudConflict, CloudUnavailable
from trimtab.platform.plugins import load
from trimtab.simulator.cloud import SimulatedCloud
from trimtab.simulator.driver import SimulatedDriver, local_call
from trimtab.simulator.faults import Fault
from trimtab.simulator.truth import CloudSpec

NOBODY = "00000000-0000-4000-8000-0000000000ff"
START = 20_000 * 86_400.0
ASKS = {"stop", "start", "resize", "confirm_resize", "migrate_volume", "retype_volume", "set_power"}


@dataclass
class Scene:
    """A made-up cloud on a virtual clock; `asked` are the requests that it took on."""

    clock: VirtualClock
    cloud: SimulatedCloud
    asked: list[str]
    trouble: Callable[[str], str | None] = lambda _: None

    @property
    def tools(self) -> Tools:
        return Tools(SimulatedDriver(self.call), self.clock, self.clock)

    async def call(self, method: str, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        trouble = self.trouble(method)
        if trouble == "lost request":
            raise CloudUnavailable(f"{method}: connection refused")
        answer = await local_call(self.cloud)(method, arguments, named)
        if method in ASKS:
            self.asked.append(method)
        if trouble == "lost answer":
            raise CloudUnavailable(f"{method}: connection reset")
        return answer

    def server(self, **wanted: Any) -> Server:
        """The first server that is so."""
        ids = self.cloud.inventory().instances["uuid"].to_pylist()
        return next(s for s in self.cloud.servers(ids).values() if all(getattr(s, k) == v for k, v in wanted.items()))

    def volumes(self) -> Iterator[tuple[dict[str, Any], Volume]]:
        """Rows of the volume table without snapshots, of a type, and the volumes."""
        tables = self.cloud.inventory().storage
        assert tables is not None
        for row in tables[3].to_pylist():
            if not row["snapshots"] and row["type"]:
                yield row, self.cloud.volumes([row["uuid"]])[row["uuid"]]

    def volume(self, *, attached: bool = False) -> Volume:
        for _, volume in self.volumes():
            if bool(volume.attached_to) == attached and (
                not attached or self.now(volume.attached_to[0]).status == "ACTIVE"
            ):
                return volume
        raise AssertionError("no such volume in this estate")

    def other_pool(self, volume: Volume) -> Pool:
        """The roomiest other pool of the volume's backend."""
        own = {pool.name: pool for pool in self.cloud.pools()}[volume.pool]
        alike = [
            pool
            for pool in self.cloud.pools()
            if pool.name != volume.pool and pool.reports["volume_backend_name"] == own.reports["volume_backend_name"]
        ]
        return max(alike, key=lambda pool: pool.free_gb)

    def other_type(self, volume: Volume) -> str:
        """A type of the other tier, which moves the volume."""
        return next(kind.name for kind in self.cloud.volume_types() if kind.name[:4] != volume.type[:4])

    def node(self, *, empty: bool) -> MetalNode:
        table = self.cloud.inventory().metal
        assert table is not None
        for row in table.to_pylist():
            if bool(self.cloud.residents(row["hostname"])) is not empty:
                found = self.cloud.metal_node(row["uuid"])
                assert found is not None
                return found
        raise AssertionError("no such node in this estate")

    def now(self, server_id: str) -> Server:
        return self.cloud.servers([server_id])[server_id]

    def volume_now(self, volume: Volume) -> Volume:
        return self.cloud.volumes([volume.id])[volume.id]

    def power(self, node: MetalNode) -> str:
        found = self.cloud.metal_node(node.id)
        assert found is not None
        return found.power


@pytest.fixture
def scene() -> Scene:
    clock = VirtualClock(START)
    spec = CloudSpec(hosts=8, instances=24, seed=11, start_s=START, history_s=0.0)
    return Scene(clock, SimulatedCloud(spec, now=clock.now), [])


def read(handler: Any, wanted: dict[str, Any]) -> Any:
    return handler.schema.model_validate(wanted)


async def whole_life(handler: Any, wanted: dict[str, Any], asked_at: float | None = None) -> None:
    parsed = read(handler, wanted)
    if asked_at is None:
        await handler.pre_condition(parsed)
    await handler.execute(parsed, asked_at=asked_at)
    await handler.post_condition(parsed)


def of(server: Server, flavor: str = "m1.large") -> dict[str, Any]:
    return {"resource_id": server.id, "flavor": flavor}


def to_pool(volume: Volume, pool: str, kind: str = "migrate") -> dict[str, Any]:
    return {"resource_id": volume.id, "migration_type": kind, "destination_node": pool, "resource_name": volume.name}


def to_type(volume: Volume, kind: str) -> dict[str, Any]:
    return {"resource_id": volume.id, "migration_type": "retype", "destination_type": kind}


def turned(node: MetalNode, state: str) -> dict[str, Any]:
    return {"resource_id": node.id, "resource_name": node.hostname, "state": state}


# -- what is on the wire ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("handler", "action_type", "words", "required"),
    [
        (Resize, "resize", "Resize a server with specified flavor.", ["resource_id", "flavor"]),
        (Stop, "stop", "Stop a VM instance", ["resource_id"]),
        (
            VolumeMigrate,
            "volume_migrate",
            "Moving a volume to destination_node or destination_type",
            ["resource_id", "migration_type"],
        ),
        (
            ChangeNodePowerState,
            "change_node_power_state",
            "Compute node power on/off through Ironic or MaaS.",
            ["resource_id", "state"],
        ),
    ],
)
def test_handlers_of_servers_storage_and_metal_describe_themselves(
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
        (Resize, {"resource_id": NOBODY}),
        (Resize, {"resource_id": "vm-1", "flavor": "m1.small"}),
        (Stop, {"resource_id": NOBODY, "force": True}),
        (VolumeMigrate, {"resource_id": NOBODY, "migration_type": "copy"}),
        (VolumeMigrate, {"resource_id": NOBODY}),
        (ChangeNodePowerState, {"resource_id": NOBODY, "state": "asleep"}),
    ],
)
def test_wrong_parameters_of_them_are_refused(handler: Any, wanted: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        handler.schema.model_validate(wanted)


# -- stop ----------------------------------------------------------------------------------------------------------


async def test_stop_shuts_a_server_down_and_its_way_back_starts_it(scene: Scene) -> None:
    server = scene.server(status="ACTIVE")
    handler = Stop(scene.tools)
    await whole_life(handler, {"resource_id": server.id})
    assert scene.now(server.id).status == "SHUTOFF"
    with pytest.raises(ActionSkipped, match=rf"^Instance {server.id} is already stopped$"):
        await whole_life(handler, {"resource_id": server.id})
    await handler.revert(read(Stop, {"resource_id": server.id}))
    assert scene.now(server.id).status == "ACTIVE"
    assert scene.asked == ["stop", "start"]


async def test_stop_skips_what_is_gone_and_takes_what_goes_meanwhile_for_stopped(scene: Scene) -> None:
    with pytest.raises(ActionSkipped, match=rf"^Instance {NOBODY} not found$"):
        await whole_life(Stop(scene.tools), {"resource_id": NOBODY})
    server = scene.server(status="ACTIVE")
    scene.cloud.inject(Fault("server_vanishes", server.id, at=START + 3))
    await whole_life(Stop(scene.tools), {"resource_id": server.id})
    assert scene.cloud.servers([server.id]) == {}


async def test_stop_says_that_the_cloud_tried_in_vain_or_has_no_end(scene: Scene) -> None:
    server = scene.server(status="ACTIVE")
    scene.cloud.inject(Fault("resize_fails", server.id))
    with pytest.raises(ActionFailed, match="is ACTIVE and not SHUTOFF after the cloud's try"):
        await whole_life(Stop(scene.tools), {"resource_id": server.id})
    scene.cloud.inject(Fault("resize_hangs", server.id))
    with pytest.raises(ActionFailed, match="is not stopped after 15 minutes"):
        await whole_life(Stop(scene.tools), {"resource_id": server.id})
    paused = scene.server(status="PAUSED")
    with pytest.raises(ActionFailed, match=r"cannot stop instance .* while it is in vm_state paused"):
        await whole_life(Stop(scene.tools), {"resource_id": paused.id})


# -- resize --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["ACTIVE", "SHUTOFF"])
async def test_resize_gives_the_flavor_and_leaves_the_server_as_it_was(scene: Scene, status: str) -> None:
    server = scene.server(status="ACTIVE", flavor="m1.small")
    if status == "SHUTOFF":
        await whole_life(Stop(scene.tools), {"resource_id": server.id})
    await whole_life(Resize(scene.tools), of(server))
    after = scene.now(server.id)
    assert (after.flavor, after.status, after.task_state) == ("m1.large", status, "")
    rows = {row["uuid"]: row for row in scene.cloud.inventory().instances.to_pylist()}
    assert [rows[server.id][column] for column in ("vcpus", "memory_mb", "disk_gb")] == [4, 16_384, 60]
    assert scene.asked[-2:] == ["resize", "confirm_resize"]
    with pytest.raises(ActionSkipped, match=r"is already of flavor m1.large"):
        await whole_life(Resize(scene.tools), of(server))


async def test_resize_skips_what_is_gone_and_fails_without_such_a_flavor(scene: Scene) -> None:
    server = scene.server(status="ACTIVE")
    with pytest.raises(ActionSkipped, match=rf"^Instance {NOBODY} not found$"):
        await whole_life(Resize(scene.tools), {"resource_id": NOBODY, "flavor": "m1.large"})
    with pytest.raises(ActionFailed, match=r"^Flavor m9.huge not found$"):
        await whole_life(Resize(scene.tools), of(server, "m9.huge"))
    with pytest.raises(ActionFailed, match="cannot be taken back"):
        await Resize(scene.tools).revert(read(Resize, of(server)))
    assert not scene.asked


async def test_resize_tells_why_the_cloud_failed_or_refused(scene: Scene) -> None:
    server = scene.server(status="ACTIVE", flavor="m1.small")
    scene.cloud.inject(Fault("resize_fails", server.id))
    with pytest.raises(ActionFailed, match=r"Resize of instance .* failed: the hypervisor reported an error"):
        await whole_life(Resize(scene.tools), of(server))
    assert scene.now(server.id) == server
    assert scene.asked == ["resize"]
    large = scene.server(status="ACTIVE", flavor="m1.medium")
    with pytest.raises(ActionFailed, match="a resize cannot shrink it"):
        await whole_life(Resize(scene.tools), of(large, "m1.small"))


# -- volumes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["migrate", "swap"])
@pytest.mark.parametrize("attached", [False, True])
async def test_a_volume_moves_to_another_pool_and_back(scene: Scene, kind: str, attached: bool) -> None:
    volume = scene.volume(attached=attached)
    pool, before = scene.other_pool(volume), scene.cloud.pools()
    tools = scene.tools
    await whole_life(VolumeMigrate(tools), to_pool(volume, pool.name, kind))
    after = scene.volume_now(volume)
    assert (after.pool, after.status, after.migration_status) == (pool.name, volume.status, "success")
    assert scene.clock.now() - START >= volume.size_gb * 1024 / 700  # no pool is faster than that
    # Another handler of the same plan undoes it.
    await VolumeMigrate(tools).revert(read(VolumeMigrate, to_pool(volume, pool.name, kind)))
    assert scene.volume_now(volume).pool == volume.pool
    assert scene.cloud.pools() == before
    with pytest.raises(ActionFailed, match="is not known any more"):
        await VolumeMigrate(scene.tools).revert(read(VolumeMigrate, to_pool(volume, pool.name, kind)))


async def test_a_volume_gets_another_type_and_moves_where_that_is_served(scene: Scene) -> None:
    volume = scene.volume()
    kind = scene.other_type(volume)
    await whole_life(VolumeMigrate(scene.tools), to_type(volume, kind))
    after = scene.volume_now(volume)
    assert (after.type, after.status) == (kind, "available")
    assert f"@{kind}#" in after.pool
    assert scene.asked == ["retype_volume"]


async def test_volume_migrate_skips_and_fails_before_it_asks(scene: Scene) -> None:
    volume, handler = scene.volume(), VolumeMigrate(scene.tools)
    with pytest.raises(ActionSkipped, match=rf"^Volume {NOBODY} not found$"):
        await whole_life(handler, {"resource_id": NOBODY, "migration_type": "migrate", "destination_node": "x"})
    with pytest.raises(ActionFailed, match=r"^Volume type golden not found$"):
        await whole_life(handler, to_type(volume, "golden"))
    with pytest.raises(ActionFailed, match=r"^Pool a@b#c not found$"):
        await whole_life(handler, to_pool(volume, "a@b#c"))
    with pytest.raises(ActionSkipped, match=rf"^Volume is already on node {volume.pool}$"):
        await whole_life(handler, to_pool(volume, volume.pool))
    with pytest.raises(ActionSkipped, match=rf"^Volume is already of type {volume.type}$"):
        await whole_life(handler, to_type(volume, volume.type))
    with pytest.raises(ActionFailed, match="destination_node is missing"):
        await whole_life(handler, {"resource_id": volume.id, "migration_type": "migrate"})
    wrong = next(pool for pool in scene.cloud.pools() if pool.reports["volume_backend_name"] != volume.type)
    with pytest.raises(ActionFailed, match=f"Volume type {volume.type} wants .*; pool {wrong.name} has "):
        await whole_life(handler, to_pool(volume, wrong.name))
    tied = scene.volume(attached=True)
    await whole_life(Stop(scene.tools), {"resource_id": tied.attached_to[0]})
    with pytest.raises(ActionFailed, match=r"is attached to instance .*, which is SHUTOFF"):
        await whole_life(handler, to_pool(tied, scene.other_pool(tied).name))
    assert scene.asked == ["stop"]


async def test_volume_migrate_tells_what_became_of_a_move_that_failed_or_has_no_end(scene: Scene) -> None:
    volume = scene.volume()
    pool, before = scene.other_pool(volume).name, scene.cloud.pools()
    scene.cloud.inject(Fault("volume_fails", volume.id))
    with pytest.raises(ActionFailed, match=f"could not be moved to {pool}: it is on {volume.pool}"):
        await whole_life(VolumeMigrate(scene.tools), to_pool(volume, pool))
    assert scene.cloud.pools() == before
    kind = scene.other_type(volume)
    scene.cloud.inject(Fault("volume_hangs", volume.id))
    begun = scene.clock.now()
    with pytest.raises(ActionFailed, match=rf"is not of type {kind} after \d+"):
        await whole_life(VolumeMigrate(scene.tools), to_type(volume, kind))
    assert 900 + 100 * volume.size_gb <= scene.clock.now() - begun < 1000 + 100 * volume.size_gb
    assert scene.asked == ["migrate_volume", "retype_volume"]
    assert not await VolumeMigrate(scene.tools).abort(read(VolumeMigrate, to_type(volume, kind)))


# -- metal ---------------------------------------------------------------------------------------------------------


async def test_an_empty_node_is_turned_off_and_on_again_until_its_host_works(scene: Scene) -> None:
    node = await emptied(scene)
    await whole_life(ChangeNodePowerState(scene.tools), turned(node, "off"))
    service = scene.cloud.service(node.hostname)
    assert scene.power(node) == "off"
    assert service is not None
    assert not service.up
    await whole_life(ChangeNodePowerState(scene.tools), turned(node, "off"))  # already: a success
    off = scene.clock.now()
    await ChangeNodePowerState(scene.tools).revert(read(ChangeNodePowerState, turned(node, "off")))
    service = scene.cloud.service(node.hostname)
    assert scene.power(node) == "on"
    assert service is not None
    assert service.up
    assert scene.clock.now() - off > 120  # it booted
    assert scene.asked == ["set_power", "set_power"]


async def emptied(scene: Scene) -> MetalNode:
    """A node whose host holds nobody any more."""
    node = scene.node(empty=False)
    for server in scene.cloud.residents(node.hostname):
        with suppress(CloudConflict):
            scene.cloud.migrate(server.id, None, live=False)
            await scene.clock.sleep(600)
    assert not scene.cloud.residents(node.hostname)
    return node


async def test_a_node_that_holds_a_server_stays_on(scene: Scene) -> None:
    node = scene.node(empty=False)
    with pytest.raises(ActionFailed, match=rf"host {node.hostname} holds \d+ servers"):
        await whole_life(ChangeNodePowerState(scene.tools), turned(node, "off"))
    with pytest.raises(CloudConflict, match="holds servers"):
        scene.cloud.set_power(node.id, on=False)
    with pytest.raises(ActionFailed, match="not found"):
        await whole_life(ChangeNodePowerState(scene.tools), {"resource_id": NOBODY, "state": "on"})
    assert not scene.asked


async def test_a_node_that_does_not_turn_is_a_failure_with_its_reason(scene: Scene) -> None:
    node = await emptied(scene)
    scene.cloud.inject(Fault("power_fails", node.id))
    with pytest.raises(ActionFailed, match="could not be turned off: the management controller did not answer"):
        await whole_life(ChangeNodePowerState(scene.tools), turned(node, "off"))
    scene.cloud.inject(Fault("power_hangs", node.id))
    with pytest.raises(ActionFailed, match="is not usable and off after 15 minutes"):
        await whole_life(ChangeNodePowerState(scene.tools), turned(node, "off"))
    assert scene.asked == ["set_power", "set_power"]


# -- interrupted, and asked again ----------------------------------------------------------------------------------


async def deeds(scene: Scene) -> list[tuple[Any, dict[str, Any], Callable[[], bool], int]]:
    """Every handler, what it is asked for, whether that is so, and how many requests it takes."""
    node = await emptied(scene)
    server, other = scene.server(status="ACTIVE", flavor="m1.small"), scene.server(status="ACTIVE", flavor="m1.medium")
    rows = [volume for _, volume in scene.volumes() if not volume.attached_to]
    moved, typed = rows[0], rows[1]
    pool, kind = scene.other_pool(moved).name, scene.other_type(typed)
    return [
        (Stop, {"resource_id": other.id}, lambda: scene.now(other.id).status == "SHUTOFF", 1),
        (Resize, of(server), lambda: scene.now(server.id)[2:] == ("ACTIVE", "", "m1.large"), 2),
        (VolumeMigrate, to_pool(moved, pool), lambda: scene.volume_now(moved).pool == pool, 1),
        (VolumeMigrate, to_type(typed, kind), lambda: scene.volume_now(typed).type == kind, 1),
        (ChangeNodePowerState, turned(node, "off"), lambda: scene.power(node) == "off", 1),
    ]


@pytest.mark.parametrize("after_s", [0.0, 1.0, 6.0, 40.0, 2000.0])
@pytest.mark.parametrize("which", range(5))
async def test_a_handler_killed_at_any_moment_and_asked_again_asks_the_cloud_once(
    scene: Scene, which: int, after_s: float
) -> None:
    handler, wanted, so, requests = (await deeds(scene))[which]
    begun = scene.clock.now()
    parsed = read(handler, wanted)
    first = asyncio.create_task(handler(scene.tools).execute(parsed, asked_at=None))
    await scene.clock.sleep(after_s)
    first.cancel()
    with suppress(asyncio.CancelledError):
        await first
    await scene.clock.sleep(after_s)
    await whole_life(handler(scene.tools), wanted, asked_at=begun)
    assert so()
    assert len(scene.asked) == requests


@pytest.mark.parametrize("what", ["lost request", "lost answer"])
@pytest.mark.parametrize("which", range(5))
async def test_a_cloud_that_cannot_be_reached_for_a_while_is_asked_once(scene: Scene, which: int, what: str) -> None:
    handler, wanted, so, requests = (await deeds(scene))[which]
    calls: dict[str, int] = {}

    def trouble(method: str) -> str | None:
        calls[method] = calls.get(method, 0) + 1
        return what if calls[method] <= 2 and (what == "lost request" or method in ASKS) else None

    scene.trouble = trouble
    await whole_life(handler(scene.tools), wanted)
    assert so()
    assert len(scene.asked) == requests


@pytest.mark.parametrize(("which", "fault"), [(1, "resize_fails"), (2, "volume_fails"), (4, "power_fails")])
async def test_what_failed_while_nobody_watched_is_a_failure_and_not_tried_again(
    scene: Scene, which: int, fault: str
) -> None:
    handler, wanted, so, _ = (await deeds(scene))[which]
    scene.cloud.inject(Fault(fault, wanted["resource_id"]))
    begun = scene.clock.now()
    first = asyncio.create_task(handler(scene.tools).execute(read(handler, wanted), asked_at=None))
    await scene.clock.sleep(1.0)
    first.cancel()
    with suppress(asyncio.CancelledError):
        await first
    await scene.clock.sleep(1000.0)
    with pytest.raises(ActionFailed):
        await whole_life(handler(scene.tools), wanted, asked_at=begun)
    assert not so()
    assert len(scene.asked) == 1


async def test_an_old_failure_is_no_reason_to_fail_again(scene: Scene) -> None:
    volume = scene.volume()
    pool = scene.other_pool(volume).name
    scene.cloud.inject(Fault("volume_fails", volume.id))
    with pytest.raises(ActionFailed):
        await whole_life(VolumeMigrate(scene.tools), to_pool(volume, pool))
    await scene.clock.sleep(100)
    await whole_life(VolumeMigrate(scene.tools), to_pool(volume, pool), asked_at=scene.clock.now())
    assert scene.volume_now(volume).pool == pool


async def test_a_cloud_out_of_reach_for_good_is_said_so(scene: Scene) -> None:
    server = scene.server(status="ACTIVE")
    scene.trouble = lambda _: "lost request"
    tools = replace(scene.tools, deadline_s=60.0)
    with pytest.raises(ActionFailed, match=r"is not stopped after 1 minutes: .*connection refused"):
        await Stop(tools).execute(read(Stop, {"resource_id": server.id}), asked_at=None)


def test_the_estate_has_what_these_tests_look_for(scene: Scene) -> None:
    sizes = np.array([volume.size_gb for _, volume in scene.volumes()])
    assert len(sizes) >= 8
    assert scene.volume().size_gb > 0
    assert scene.other_pool(scene.volume()).free_gb > scene.volume().size_gb
