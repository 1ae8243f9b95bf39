"""Asking the cloud: many questions in one bulk call, and patience with a cloud that does not answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from trimtab.platform.contracts import (
    Driver,
    Flavor,
    Inventory,
    MetalNode,
    Migration,
    Pool,
    Server,
    ServiceInfo,
    Tools,
    Volume,
    VolumeType,
    Wanted,
)
from trimtab.platform.errors import ActionFailed, CloudError, CloudUnavailable

T = TypeVar("T")

LONGEST_PAUSE = 12  # times poll_s: back-off stops growing here
SKEW_S = 1.0  # how far the cloud's clock may be behind ours when we look for what an interrupted try started
REFUSALS = 2  # refusals in a row, nothing under way in between, that settle the matter


class Watch:
    """A driver that turns all `servers` questions of one moment into one bulk call; the rest passes through.

    Args:
        driver: the cloud.
        gather_s: wall seconds to wait for more questions; 0 gathers those of one turn of the event loop.
        at_most: servers in one bulk call; more are asked for in several calls.
    """

    def __init__(self, driver: Driver, gather_s: float = 0.0, at_most: int = 1000) -> None:
        self.driver = driver
        self._gather_s = gather_s
        self._at_most = at_most
        self._asked: dict[str, asyncio.Future[Server | None]] = {}
        self._calls: set[asyncio.Task[None]] = set()

    async def server(self, server_id: str) -> Server | None:
        """One server; None when the cloud has no such server."""
        answer = self._asked.get(server_id)
        if answer is None:
            answer = asyncio.get_running_loop().create_future()
            if not self._asked:
                call = asyncio.create_task(self._ask_soon())
                self._calls.add(call)
                call.add_done_callback(self._calls.discard)
            self._asked[server_id] = answer
        return await asyncio.shield(answer)  # whoever gives up waiting takes the answer from nobody else

    async def servers(self, ids: Sequence[str]) -> dict[str, Server]:
        """Those of the named servers that exist."""
        answers = await asyncio.gather(*(self.server(server_id) for server_id in ids))
        return {server.id: server for server in answers if server is not None}

    async def _ask_soon(self) -> None:
        await asyncio.sleep(self._gather_s)
        asked, self._asked = self._asked, {}
        ids = list(asked)
        for start in range(0, len(ids), self._at_most):
            some = ids[start : start + self._at_most]
            try:
                found = await self.driver.servers(some)
            except BaseException as error:
                # Everybody who asked hears what happened; a cancelled call is heard as a cancelled question.
                for server_id in ids[start:]:
                    _fail(asked[server_id], error)
                if isinstance(error, Exception):
                    return
                raise
            for server_id in some:
                if not asked[server_id].done():
                    asked[server_id].set_result(found.get(server_id))

    async def inventory(self) -> Inventory:
        """As the cloud's driver."""
        return await self.driver.inventory()

    async def service(self, host: str) -> ServiceInfo | None:
        """As the cloud's driver."""
        return await self.driver.service(host)

    async def migrate(self, server_id: str, destination: str | None, *, live: bool) -> None:
        """As the cloud's driver."""
        await self.driver.migrate(server_id, destination, live=live)

    async def migrations(self, server_id: str) -> list[Migration]:
        """As the cloud's driver."""
        return await self.driver.migrations(server_id)

    async def abort_migration(self, server_id: str) -> None:
        """As the cloud's driver."""
        await self.driver.abort_migration(server_id)

    async def refusals(self, wanted: Sequence[Wanted]) -> list[str]:
        """As the cloud's driver."""
        return await self.driver.refusals(wanted)

    async def set_service(self, host: str, *, enabled: bool, reason: str = "") -> ServiceInfo:
        """As the cloud's driver."""
        return await self.driver.set_service(host, enabled=enabled, reason=reason)

    async def residents(self, host: str) -> list[Server]:
        """As the cloud's driver."""
        return await self.driver.residents(host)

    async def stop(self, server_id: str) -> None:
        """As the cloud's driver."""
        await self.driver.stop(server_id)

    async def start(self, server_id: str) -> None:
        """As the cloud's driver."""
        await self.driver.start(server_id)

    async def flavors(self, names: Sequence[str]) -> dict[str, Flavor]:
        """As the cloud's driver."""
        return await self.driver.flavors(names)

    async def resize(self, server_id: str, flavor: str) -> None:
        """As the cloud's driver."""
        await self.driver.resize(server_id, flavor)

    async def confirm_resize(self, server_id: str) -> None:
        """As the cloud's driver."""
        await self.driver.confirm_resize(server_id)

    async def volumes(self, ids: Sequence[str]) -> dict[str, Volume]:
        """As the cloud's driver."""
        return await self.driver.volumes(ids)

    async def pools(self) -> list[Pool]:
        """As the cloud's driver."""
        return await self.driver.pools()

    async def volume_types(self) -> list[VolumeType]:
        """As the cloud's driver."""
        return await self.driver.volume_types()

    async def migrate_volume(self, volume_id: str, pool: str) -> None:
        """As the cloud's driver."""
        await self.driver.migrate_volume(volume_id, pool)

    async def retype_volume(self, volume_id: str, volume_type: str) -> None:
        """As the cloud's driver."""
        await self.driver.retype_volume(volume_id, volume_type)

    async def metal_node(self, node_id: str) -> MetalNode | None:
        """As the cloud's driver."""
        return await self.driver.metal_node(node_id)

    async def set_power(self, node_id: str, *, on: bool) -> None:
        """As the cloud's driver."""
        await self.driver.set_power(node_id, on=on)


def _fail(answer: asyncio.Future[Server | None], error: BaseException) -> None:
    if answer.done():
        return
    if isinstance(error, asyncio.CancelledError):
        answer.cancel()
        return
    answer.set_exception(error)
    answer.exception()  # marked as seen: all who asked may have given up meanwhile


async def patiently(tools: Tools, ask: Callable[[], Awaitable[T]]) -> T:
    """Ask again, ever more rarely, while the cloud cannot be reached.

    Raises:
        CloudUnavailable: it could not be reached for `tools.deadline_s` seconds.
    """
    give_up = tools.clock.now() + tools.deadline_s
    pause = tools.poll_s
    while True:
        try:
            return await ask()
        except CloudUnavailable:
            if tools.clock.now() + pause > give_up:
                raise
        await tools.clock.sleep(pause)
        pause = longer(tools, pause)


async def until_done(tools: Tools, advance: Callable[[], Awaitable[bool]], late: str) -> None:
    """Look, and ask where that is due, every `poll_s` seconds until `advance` says that it is done.

    Args:
        tools: clock and patience.
        advance: one look; True when done, raises when it will never be.
        late: what is not so when `deadline_s` is over.

    Raises:
        ActionFailed: the cloud refuses for good, or the deadline is over.
    """
    clock, give_up = tools.clock, tools.clock.now() + tools.deadline_s
    pause, trouble = tools.poll_s, ""
    while True:
        try:
            if await advance():
                return
            pause, trouble = tools.poll_s, ""
        except CloudUnavailable as error:
            pause, trouble = longer(tools, pause), f": {error}"
        except CloudError as error:
            raise ActionFailed(str(error)) from error
        left = give_up - clock.now()
        if left <= 0:
            raise ActionFailed(f"{late} after {tools.deadline_s / 60:g} minutes{trouble}")
        await clock.sleep(min(until_next_look(tools, pause), left))


def longer(tools: Tools, pause: float) -> float:
    """The pause after this one when the cloud still does not answer."""
    return min(pause * 2, tools.poll_s * LONGEST_PAUSE)


def until_next_look(tools: Tools, pause: float) -> float:
    """Seconds until the next multiple of `pause` on the cloud's clock, so that those who poll meet in one bulk call."""
    now = tools.clock.now()
    wait = (now // pause + 1) * pause - now
    return wait if wait > pause * 0.01 else wait + pause
