"""Whether a destination still has room: asked again when what should have made the room did not happen."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

import numpy as np

from trimtab.platform.contracts import Tools
from trimtab.platform.errors import ModelError
from trimtab.platform.model import ClusterModel, Placement
from trimtab.platform.records import Action
from trimtab.platform.rules import AnyRule, destinations, ruled
from trimtab.platform.states import ActionState
from trimtab.platform.watch import patiently

log = logging.getLogger(__name__)

Room = Callable[[Action, Callable[[], Sequence[Action]]], Awaitable[str | None]]
"""(a migration, who else has begun and not failed by now) -> None when there is room for it, else why not."""


class CloudRoom:
    """Asks the cloud's inventory, in bulk and at most once every `fresh_s` seconds of the cloud's clock."""

    def __init__(self, tools: Tools, fresh_s: float | None = None, rules: Sequence[AnyRule] = ()) -> None:
        """`rules` are the operator's, as the collector has them."""
        self._tools, self._rules = tools, rules
        self._fresh_s = tools.poll_s if fresh_s is None else fresh_s
        self._asked_at = -np.inf
        self._model: ClusterModel | None = None
        self._asking = asyncio.Lock()

    async def __call__(self, action: Action, begun: Callable[[], Sequence[Action]]) -> str | None:
        """See `Room`. An instance under way counts at both ends."""
        host, instance = action.input_parameters.get("destination_node"), action.input_parameters["resource_id"]
        model = await self._look()
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
        return None

    async def _look(self) -> ClusterModel | None:
        async with self._asking:
            now = self._tools.clock.now()
            if now - self._asked_at >= self._fresh_s:
                inventory = await patiently(self._tools, self._tools.cloud.inventory)
                self._asked_at = now
                try:
                    bare = ClusterModel.from_arrow(inventory.hosts, inventory.instances, inventory.groups)
                    self._model = ruled(bare, self._rules, [])
                except ModelError:
                    log.warning("room cannot be checked: the cloud's inventory is not consistent", exc_info=True)
                    self._model = None
            return self._model


def _expected(model: ClusterModel, action: Action, begun: Sequence[Action]) -> Placement:
    """The placement in which every migration begun has arrived and, while under way, still takes room where it was."""
    placement = model.placement()
    for other in begun:
        if other.uuid == action.uuid or not other.input_parameters.get("destination_node"):
            continue
        row = int(model.instance_rows([other.input_parameters["resource_id"]])[0])
        ends = [other.input_parameters["source_node"], other.input_parameters["destination_node"]]
        source, to = (int(host) for host in model.host_rows_by_name(ends))
        if row < 0 or to < 0 or int(placement.host_of[row]) != source:
            continue
        placement.move(row, to)
        if other.state != ActionState.SUCCEEDED:
            placement.used[:, source] += model.need[row]
    return placement
