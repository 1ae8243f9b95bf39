"""The last look before a move: is it still within its audit's scope, and is there still room where it goes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import numpy as np

from trimtab.platform import scope as scopes
from trimtab.platform.contracts import Tools
from trimtab.platform.errors import ModelError
from trimtab.platform.model import ClusterModel, Placement
from trimtab.platform.records import Action
from trimtab.platform.rules import AnyRule, destinations, ruled
from trimtab.platform.scope_schema import section
from trimtab.platform.states import ActionState
from trimtab.platform.watch import patiently

log = logging.getLogger(__name__)

OF_INSTANCES = frozenset({"migrate", "resize", "stop"})  # what a scope keeps away from an instance

Room = Callable[[Action, Callable[[], Sequence[Action]]], Awaitable[str | None]]
"""(a migration, who else has begun and not failed by now) -> None when there is room for it, else why not."""

InScope = Callable[[Action], Awaitable[str | None]]
"""An action -> None when its audit's scope still covers it, else why not."""


class CloudRoom:
    """Asks the cloud's inventory, in bulk and at most once every `fresh_s` seconds of the cloud's clock."""

    def __init__(
        self,
        tools: Tools,
        fresh_s: float | None = None,
        rules: Sequence[AnyRule] = (),
        scope: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        """`rules` are the operator's, as the collector has them; `scope` is that of the audit that made the plan."""
        self._tools, self._rules, self._scope = tools, rules, scope
        self._fresh_s = tools.poll_s if fresh_s is None else fresh_s
        self._asked_at = -np.inf
        self._model: ClusterModel | None = None
        self._part: ClusterModel | None = None  # of the model: what the scope covers, with the scope's own rules
        self._asking = asyncio.Lock()

    @property
    def narrows(self) -> bool:
        """Whether there is a scope that leaves anything out."""
        return bool(section(self._scope, "compute"))

    async def outside(self, action: Action) -> str | None:
        """See `InScope`. Who cannot be found at all is left to the action's own pre-condition.

        Raises:
            TrimtabError: the scope cannot be understood.
        """
        if not self.narrows or action.action_type not in OF_INSTANCES:
            return None
        instance, wanted = str(action.input_parameters["resource_id"]), action.input_parameters.get("destination_node")
        await self._look()
        model, part = self._model, self._part
        if model is None or part is None:
            return (
                f"nobody can tell whether instance {instance} is in its audit's scope: the inventory contradicts itself"
            )
        row = int(model.instance_rows([instance])[0])
        if row < 0:
            return None
        inside = int(part.instance_rows([instance])[0])
        if inside < 0:
            host = model.host_name(int(model.host_of[row])) if model.host_of[row] >= 0 else "no host"
            return f"instance {instance} is on {host}, which is not in its audit's scope any more"
        if part.excluded[inside]:
            return f"instance {instance} is not in its audit's scope any more: it is excluded"
        if wanted and int(model.host_rows_by_name([wanted])[0]) >= 0 > int(part.host_rows_by_name([wanted])[0]):
            return f"host {wanted} is not in its audit's scope any more"
        return None

    async def __call__(self, action: Action, begun: Callable[[], Sequence[Action]]) -> str | None:
        """See `Room`. An instance under way counts at both ends."""
        host, instance = action.input_parameters.get("destination_node"), action.input_parameters["resource_id"]
        await self._look()
        model, part = self._model, self._part
        if model is None or not host:
            return None  # nobody can tell but the cloud itself, which refuses what does not fit
        row, to = int(model.instance_rows([instance])[0]), int(model.host_rows_by_name([host])[0])
        if row < 0:
            return f"the cloud's inventory has no instance {instance}"
        if to < 0:
            return f"the cloud's inventory has no host {host}"
        placement = _expected(model, action, begun())
        if not placement.fits(row)[to]:
            return f"host {host} has no room for instance {instance}"
        if not destinations(placement, row, np.ones(model.hosts, bool))[to]:
            return f"host {host} may not hold instance {instance} because of its zone, its server group or a rule"
        if part is not None and part is not model and (reason := _against(part, action, begun())):
            return reason
        return None

    async def _look(self) -> None:
        async with self._asking:
            now = self._tools.clock.now()
            if now - self._asked_at < self._fresh_s:
                return
            inventory = await patiently(self._tools, self._tools.cloud.inventory)
            model = part = None
            try:
                bare = ClusterModel.from_arrow(inventory.hosts, inventory.instances, inventory.groups)
                model = ruled(bare, self._rules, [])
                part, _ = scopes.narrow(model, self._scope)
            except ModelError:
                log.warning("room cannot be checked: the cloud's inventory is not consistent", exc_info=True)
            self._model, self._part, self._asked_at = model, part, now


def _against(part: ClusterModel, action: Action, begun: Sequence[Action]) -> str | None:
    """Whether the scope's own rules let a migration go where it goes; whether it is covered at all is not asked."""
    host, instance = action.input_parameters["destination_node"], action.input_parameters["resource_id"]
    row, to = int(part.instance_rows([instance])[0]), int(part.host_rows_by_name([host])[0])
    if row < 0 or to < 0:
        return None
    if destinations(_expected(part, action, begun), row, np.ones(part.hosts, bool))[to]:
        return None
    return f"host {host} may not hold instance {instance} because of a rule of its audit's scope"


def _expected(model: ClusterModel, action: Action, begun: Sequence[Action]) -> Placement:
    """The placement in which every migration begun has arrived and, while under way, still takes room where it was."""
    placement = model.placement()
    for other in begun:
        if other.uuid == action.uuid or not other.input_parameters.get("destination_node"):
            continue
        row = int(model.instance_rows([other.input_parameters["resource_id"]])[0])
        ends = [other.input_parameters["source_node"], other.input_parameters["destination_node"]]
        source, to = (int(host) for host in model.host_rows_by_name(ends))
        if min(row, to, source) < 0 or int(placement.host_of[row]) != source:
            continue
        placement.move(row, to)
        if other.state != ActionState.SUCCEEDED:
            placement.used[:, source] += model.need[row]
    return placement
