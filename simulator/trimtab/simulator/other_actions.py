"""What actions other than migrations do to a rehearsed world, and how long they take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from trimtab.platform.model import StorageModel
from trimtab.platform.proposal import PlannedAction
from trimtab.simulator.servers import RESIZE_S, Servers, flavors_of
from trimtab.simulator.storage import Storage
from trimtab.simulator.world import World

Ended = Callable[[], None]


@dataclass(eq=False, slots=True)
class OtherActions:
    """Begins stops, resizes, volume moves and changes of power in a world; says why not, where that cannot be.

    Args:
        world: what they act on.
        volumes: the storage model of the snapshot; None: moves of volumes take `volume_s` and nothing is checked.
        pool_mb_s: assumed speed at which a pool copies volumes, shared by those that move.
        volume_s: what the move of a volume of unknown size takes.
        boot_s: from power on until a host works, unless the world knows better.
        shutdown_s: from the request until a host is off.
    """

    world: World
    volumes: StorageModel | None = None
    pool_mb_s: float = 300.0
    volume_s: float = 600.0
    boot_s: float = 240.0
    shutdown_s: float = 60.0
    _made: Servers | None = None  # both when they are needed: most plans only migrate
    _storage: Storage | None = None

    @property
    def _servers(self) -> Servers:
        if self._made is None:
            self._made = Servers(self.world, None, flavors_of(self.world.model, ()))
        return self._made

    def begin(self, action: PlannedAction, ended: Ended) -> str | None:
        """Start an action; `ended` is called when it is over. Else why it cannot be, and nothing has happened."""
        begin = {
            "stop": self._stop,
            "resize": self._resize,
            "volume_migrate": self._move_volume,
            "change_node_power_state": self._turn,
        }.get(action.action_type)
        if begin is None:
            return f"there is a {action.action_type}, of which the simulator has no model"
        return begin(action, ended)

    def busy(self, instance: int) -> str | None:
        """Why an instance cannot be migrated now, besides what the world says."""
        return None if self._made is None else self._made.cannot_migrate(instance)

    def _stop(self, action: PlannedAction, ended: Ended) -> str | None:
        row = self._instance(action)
        if row < 0:
            return f"stop: the model has no instance {action.parameters.get('resource_id')}"
        refusal = self._servers.stop_refusal(row)
        if refusal is None:
            self._servers.told[row] = ended
            self._servers.stop(row)
        return refusal

    def _resize(self, action: PlannedAction, ended: Ended) -> str | None:
        servers, row = self._servers, self._instance(action)
        if row < 0:
            return f"resize: the model has no instance {action.parameters.get('resource_id')}"
        flavor = servers.flavor(str(action.parameters.get("flavor")))
        if flavor is None:  # no instance has it, so nobody here knows its size
            self.world.events.at(self.world.events.now + RESIZE_S, ended)
            return None
        refusal = servers.resize_refusal(row, flavor)
        if refusal is not None:
            return refusal

        def confirm() -> None:
            if servers.confirm_refusal(row) is None:
                servers.told[row] = ended
                servers.confirm(row)
            else:
                ended()

        servers.told[row] = confirm
        servers.resize(row, flavor, servers.destination(row, flavor))
        return None

    def _move_volume(self, action: PlannedAction, ended: Ended) -> str | None:
        if self._storage is None and self.volumes is not None:
            self._storage = Storage(self.volumes, self.world.events, np.full(self.volumes.pools, self.pool_mb_s))
        storage, wanted = self._storage, action.parameters
        row = None if storage is None else storage.row(str(wanted.get("resource_id")))
        if storage is None or row is None:
            self.world.events.at(self.world.events.now + self.volume_s, ended)
            return None
        if wanted.get("migration_type") == "retype":
            kind = storage.type(str(wanted.get("destination_type")))
            refusal = (
                f"there is no volume type {wanted.get('destination_type')}"
                if kind is None
                else storage.retype_refusal(row, kind)
            )
            if refusal is None and kind is not None:
                storage.told[row] = ended
                storage.retype(row, kind, storage.pool_after(row, kind))
            return refusal
        pool = storage.pool(str(wanted.get("destination_node")))
        refusal = f"there is no pool {wanted.get('destination_node')}" if pool is None else storage.refusal(row, pool)
        if refusal is None and pool is not None:
            storage.told[row] = ended
            storage.migrate(row, pool)
        return refusal

    def _turn(self, action: PlannedAction, ended: Ended) -> str | None:
        world, name = self.world, str(action.parameters.get("resource_name") or "")
        host = action.host if action.host >= 0 else int(world.model.host_rows_by_name([name])[0])
        on = action.parameters.get("state") == "on"
        if host >= 0 and not on and (world.place.used[:, host] > 1e-6).any():
            return f"host {world.model.host_name(host)} is to be turned off but holds instances"

        def turned() -> None:
            if host >= 0 and on:
                world.restore_host(host)
            elif host >= 0 and not (world.place.used[:, host] > 1e-6).any():
                world.lose_host(host)
            ended()

        takes = self.shutdown_s if not on else 0.0 if world.boot_s > 0 else self.boot_s
        world.events.at(world.events.now + takes, turned)
        return None

    def _instance(self, action: PlannedAction) -> int:
        return int(self.world.model.instance_rows([str(action.parameters.get("resource_id"))])[0])
