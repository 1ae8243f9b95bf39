"""Walking a graph of actions: parents first, as parallel as the slots allow."""

from __future__ import annotations

import asyncio
from bisect import insort
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

from trimtab.platform.errors import InvalidInput, PlanError
from trimtab.platform.proposal import Limits
from trimtab.platform.records import Action

OTHERS_AT_ONCE = 16  # actions other than migrations: small requests, or sleep


class Slots:
    """How much may be in flight at once; shared by all plans that one applier runs.

    A migration takes one slot in total and one on each of its hosts, source and destination; every other action takes
    one of `others`.
    """

    def __init__(self, limits: Limits, others: int = OTHERS_AT_ONCE) -> None:
        if min(limits.migrations_per_host, limits.migrations_total, others) < 1:
            raise InvalidInput(f"{limits} with {others} other actions: with a limit below 1 no plan would ever end")
        self.limits = limits
        self._others = others
        self._per_host: Counter[str] = Counter()
        self._in_flight: dict[str, Action] = {}
        self._migrations = 0
        self._waiting: list[asyncio.Future[None]] = []
        self.unsure: set[str] = set()  # those among them that wait for `checking`: they may turn out to have no room
        self.checking = asyncio.Lock()

    @property
    def begun(self) -> list[Action]:
        """The migrations that have a slot now and a right to room at their destination."""
        return [a for a in self._in_flight.values() if a.action_type == "migrate" and a.uuid not in self.unsure]

    def free_for(self, action: Action) -> bool:
        """Whether an action could start now."""
        if action.action_type != "migrate":
            return len(self._in_flight) - self._migrations < self._others
        if self._migrations >= self.limits.migrations_total:
            return False
        return all(self._per_host[host] < self.limits.migrations_per_host for host in hosts_of(action))

    def take(self, action: Action) -> None:
        """Take a slot; whether one is free has been asked before, or does not matter: it is under way already."""
        if action.action_type == "migrate":
            self._per_host.update(hosts_of(action))
            self._migrations += 1
        self._in_flight[action.uuid] = action

    def give(self, uuid: str) -> None:
        """Give a slot back and wake those who wait for one."""
        action = self._in_flight.pop(uuid)
        self.unsure.discard(uuid)
        if action.action_type == "migrate":
            self._per_host.subtract(hosts_of(action))
            self._per_host += Counter()  # drops the zeros
            self._migrations -= 1
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)

    def changed(self) -> asyncio.Future[None]:
        """Done as soon as any slot is given back."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        return waiter


def hosts_of(action: Action) -> set[str]:
    """Names of the hosts a migration loads: where it comes from and, if known, where it goes."""
    wanted = action.input_parameters
    return {str(name) for name in (wanted.get("source_node"), wanted.get("destination_node")) if name}


async def walk(
    actions: Sequence[Action],
    after: Mapping[str, Collection[str]],
    slots: Slots,
    work: Callable[[Action], Awaitable[None]],
    *,
    idle: Callable[[Action], bool] = lambda _: False,
    may_start: Callable[[], Awaitable[bool]] | None = None,
) -> list[Action]:
    """Do the work of all actions, each one after those it must come after; among those ready, in the order given.

    What is ONGOING already starts at once, whatever it comes after and whatever the limits are.

    Args:
        actions: the nodes of the graph.
        after: uuid -> uuids of the nodes it must come after; others than `actions` do not count.
        slots: what may run at once.
        work: does one action and returns when it is in a final state; what it raises ends the walk. Its slot is taken
            in the same turn of the event loop in which `work` is called.
        idle: actions that need no work (and no slot): they are over as soon as those before them are.
        may_start: asked before each start; once it says no, nothing starts any more and what runs comes to its end.

    Returns:
        The actions that were not started.
    """
    position = {action.uuid: number for number, action in enumerate(actions)}
    before = {uuid: {parent for parent in after.get(uuid, ()) if parent in position} for uuid in position}
    children: dict[str, list[str]] = {uuid: [] for uuid in position}
    for uuid, parents in before.items():
        for parent in parents:
            children[parent].append(uuid)
    missing = {uuid: len(parents) for uuid, parents in before.items()}
    ready = [number for number, action in enumerate(actions) if not missing[action.uuid]]
    left = dict.fromkeys(position)
    running: dict[asyncio.Future[None], str] = {}
    stopped = False

    def start(action: Action) -> None:
        del left[action.uuid]
        slots.take(action)
        running[asyncio.ensure_future(_work(work(action), action, slots))] = action.uuid

    def over(uuid: str) -> None:
        for child in children[uuid]:
            missing[child] -= 1
            if not missing[child] and child in left:
                insort(ready, position[child])

    try:
        for action in actions:
            if action.state == "ONGOING" and not idle(action):
                start(action)
        while True:
            progress = False
            for number in list(ready):
                action = actions[number]
                if action.uuid not in left:  # it was under way from the beginning
                    ready.remove(number)
                    continue
                if idle(action):
                    ready.remove(number)
                    del left[action.uuid]
                    over(action.uuid)
                    progress = True
                    continue
                if stopped or not slots.free_for(action):
                    continue
                if may_start is not None and not await may_start():
                    stopped = True
                elif slots.free_for(action):  # another plan may have been quicker
                    ready.remove(number)
                    start(action)
            if progress:
                continue
            if not running:
                if stopped or not ready:
                    return [action for action in actions if action.uuid in left]
                await slots.changed()  # another plan holds the slots
                continue
            changed = slots.changed()
            done, _ = await asyncio.wait({*running, changed}, return_when=asyncio.FIRST_COMPLETED)
            for task in [task for task in running if task in done]:
                uuid = running.pop(task)
                task.result()
                over(uuid)
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def _work(work: Awaitable[None], action: Action, slots: Slots) -> None:
    try:
        await work
    finally:
        slots.give(action.uuid)


def check_graph(actions: Sequence[Action]) -> None:
    """Whether the parents of all actions exist and nothing waits for itself.

    Raises:
        PlanError: names the action.
    """
    known = {action.uuid: action for action in actions}
    missing = {}
    children: dict[str, list[str]] = {uuid: [] for uuid in known}
    for action in actions:
        parents = set(action.parents)
        if unknown := sorted(parents - known.keys()):
            raise PlanError(f"action {action.uuid} has a parent {unknown[0]} that is not in its plan")
        missing[action.uuid] = len(parents)
        for parent in parents:
            children[parent].append(action.uuid)
    free = [uuid for uuid, count in missing.items() if not count]
    for uuid in free:  # grows while it is walked
        for child in children[uuid]:
            missing[child] -= 1
            if not missing[child]:
                free.append(child)
    if len(free) < len(known):
        stuck = next(uuid for uuid, count in missing.items() if count)
        raise PlanError(f"action {stuck} waits for itself: the graph of its plan has a cycle")
