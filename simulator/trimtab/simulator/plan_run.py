"""A plan on its way through a world: the one engine of the rehearsal and of the closed loop."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from functools import partial

from trimtab.platform.proposal import Limits, Plan, PlannedAction
from trimtab.simulator.other_actions import OtherActions
from trimtab.simulator.world import Trip, World

MOST_VIOLATIONS = 20


class PlanRun:
    """One plan on its way through a world, started as the applier starts it: whatever is ready, in the plan's order.

    A migration takes one slot in total and one on each of its hosts until its end is noticed. One that finds a limit
    reached waits at that limit (-1: the total, else the host), so that a freed slot asks only those it may help.
    """

    def __init__(
        self,
        world: World,
        plan: Plan,
        limits: Limits,
        notice_s: float,
        service_s: float,
        others: OtherActions | None = None,
    ) -> None:
        """Nothing happens before `start`.

        Args:
            world: where the plan is carried out.
            plan: the graph of actions.
            limits: migrations in flight.
            notice_s: from the end of a migration until the applier has seen it.
            service_s: what enabling or disabling a service takes.
            others: carries out what is neither a migration nor a change of a service; one that knows the world only
                if None.
        """
        self.world, self.actions, self.limits = world, plan.actions, limits
        self.notice_s, self.service_s = notice_s, service_s
        self.others = OtherActions(world) if others is None else others
        self.violations: list[str] = []  # at most `MOST_VIOLATIONS`, then "and more"
        self.refused: list[int] = []  # instances whose migration could not begin
        self.open = len(plan.actions)
        self.last_end = world.events.now
        self._missing = [len(set(action.parents)) for action in plan.actions]
        self._children: dict[int, list[int]] = {}
        for position, action in enumerate(plan.actions):
            for parent in set(action.parents):
                self._children.setdefault(parent, []).append(position)
        self._in_flight = 0
        self._at_host: dict[int, int] = {}
        self._waiting: dict[int, list[int]] = {}  # limit -> heap of positions

    def start(self) -> None:
        """Begin with everything that has no parent."""
        self._begin([position for position, missing in enumerate(self._missing) if not missing], ())

    def _begin(self, ready: list[int], freed: Iterable[int]) -> None:
        """Start what is ready, and what waits at freed limits, in the plan's order."""
        heapq.heapify(ready)
        while True:
            heaps = [ready, *(self._waiting[key] for key in freed if self._waiting.get(key) and not self._full(key))]
            first = min((heap for heap in heaps if heap), key=lambda heap: heap[0], default=None)
            if first is None:
                return
            position = heapq.heappop(first)
            action = self.actions[position]
            if action.action_type == "migrate":
                self._try(position, action)
            elif action.action_type == "change_nova_service_state":
                self._after(self.service_s, position, partial(self._set_service, action))
            elif action.action_type == "sleep":
                self._after(int(action.parameters.get("duration", 0)), position)
            elif action.action_type == "nop":
                self._after(0.0, position)
            else:
                self._other(position, action)

    def _other(self, position: int, action: PlannedAction) -> None:
        refusal = self.others.begin(action, lambda: self._after(self.notice_s, position))
        if refusal is not None:
            self._violated(f"action {position}: {refusal}")
            self._after(0.0, position)

    def _try(self, position: int, action: PlannedAction) -> None:
        """Start a migration, or let it wait at the first limit in its way."""
        source, destination = int(self.world.place.host_of[action.instance]), action.destination
        if destination < 0:
            destination = self.world.choose(action.instance)
        for key in (-1, source, destination):
            if self._full(key):
                heapq.heappush(self._waiting.setdefault(key, []), position)
                return
        refusal = self._refusal(action, source, destination)
        if refusal:
            self._violated(refusal)
            self.refused.append(action.instance)
            self._after(0.0, position)
            return
        self._take(1, source, destination)
        self.world.migrate(
            action.instance,
            destination,
            live=action.live,
            ended=lambda trip: self._after(self.notice_s, position, trip=trip),
        )

    def _take(self, slots: int, *hosts: int) -> None:
        self._in_flight += slots
        for host in hosts:
            self._at_host[host] = self._at_host.get(host, 0) + slots

    def _full(self, key: int) -> bool:
        if key == -1:
            return self._in_flight >= self.limits.migrations_total
        return self._at_host.get(key, 0) >= self.limits.migrations_per_host

    def _refusal(self, action: PlannedAction, source: int, destination: int) -> str | None:
        model = self.world.model
        if action.source not in {-1, source}:
            there = f"on {model.host_name(source)}" if source >= 0 else "nowhere"
            return (
                f"instance {model.instance_name(action.instance) or model.instance_id(action.instance)} is {there}, "
                f"not on {model.host_name(action.source)}, when its move begins"
            )
        return self.others.busy(action.instance) or self.world.refusal(action.instance, destination, live=action.live)

    def _set_service(self, action: PlannedAction) -> None:
        model, host = self.world.model, action.host
        name = str(action.parameters.get("resource_name") or action.parameters.get("resource_id"))
        if host < 0:
            host = int(max(model.host_rows_by_name([name])[0], model.host_rows([name])[0]))
        if host < 0:
            self._violated(f"change_nova_service_state: the model has no host {name}")
        else:
            self.world.set_service(host, enabled=action.parameters.get("state") == "enabled")

    def _after(
        self,
        seconds: float,
        position: int,
        effect: Callable[[], None] = lambda: None,
        trip: Trip | None = None,
    ) -> None:
        """End an action so much later; then its children, and what waited for its slots, may begin."""

        def end() -> None:
            effect()
            freed: tuple[int, ...] = ()
            if trip is not None:
                freed = (-1, trip.flow.source, trip.flow.destination)
                self._take(-1, *freed[1:])
            self.open -= 1
            self.last_end = self.world.events.now
            ready = []
            for child in self._children.get(position, ()):
                self._missing[child] -= 1
                if not self._missing[child]:
                    ready.append(child)
            self._begin(ready, freed)

        self.world.events.at(self.world.events.now + seconds, end)

    def _violated(self, text: str) -> None:
        if len(self.violations) < MOST_VIOLATIONS:
            self.violations.append(text)
        elif len(self.violations) == MOST_VIOLATIONS:
            self.violations.append("and more")
