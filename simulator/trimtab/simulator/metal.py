"""The simulated cloud's metal: nodes that take their time to turn on and off, and the compute hosts on them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from trimtab.platform.contracts import MetalNode
from trimtab.platform.model import BaremetalModel
from trimtab.platform.model.baremetal import OFF, ON, UNKNOWN
from trimtab.platform.model.compute import Floats, Ints
from trimtab.platform.model.placement import ROUNDING
from trimtab.simulator.events import Event
from trimtab.simulator.migration import Mishap
from trimtab.simulator.world import World

WORDS = {ON: "on", OFF: "off", UNKNOWN: "unknown"}
SWITCH_S = 8.0  # from the request until the management controller reports "on"


@dataclass(eq=False, slots=True)
class Metal:
    """Mutable power state over a baremetal model; rows are the model's.

    `host_of` [M]: row of the compute host on a node, -1 = none. `boot_s`, `shutdown_s` [M]: from power on until the
    compute service is up, from the request until the power is off. A host whose node is off is down.
    """

    model: BaremetalModel
    world: World
    host_of: Ints
    boot_s: Floats
    shutdown_s: Floats
    power: npt.NDArray[np.int32] = field(init=False)
    target: dict[int, int] = field(default_factory=dict)
    error: dict[int, str] = field(default_factory=dict)
    changed_at: dict[int, float] = field(default_factory=dict)
    _mishaps: dict[int, Mishap] = field(default_factory=dict)
    _boots: dict[int, Event] = field(default_factory=dict)
    _rows: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        self.power = self.model.power.copy()
        self._rows = {str(uuid): row for row, uuid in enumerate(self.model.ids.to_pylist())}

    def table(self) -> pa.Table:
        """All nodes as they are now."""
        return self.model.with_changes(power=self.power.copy()).to_arrow()

    def row(self, node_id: str) -> int | None:
        """Row of a node; None when there is no such node."""
        return self._rows.get(node_id)

    def node(self, row: int) -> MetalNode:
        """One node."""
        model = self.model
        return MetalNode(
            str(model.ids[row].as_py()),
            str(model.names[row].as_py()),
            str(model.hostnames[row].as_py()),
            WORDS[int(self.power[row])],
            WORDS[self.target[row]] if row in self.target else "",
            self.error.get(row, ""),
            bool(model.maintenance[row]),
            self.changed_at.get(row, 0.0),
        )

    def refusal(self, row: int, *, on: bool) -> str | None:
        """Why the power of a node cannot be changed now."""
        name, host = str(self.model.names[row].as_py()), int(self.host_of[row])
        if row in self.target:
            return f"metal node {name} is busy: it is turning {WORDS[self.target[row]]} already"
        if self.model.maintenance[row]:
            return f"metal node {name} is in maintenance: {self.model.maintenance_reason[row] or 'no reason given'}"
        if self.power[row] == (ON if on else OFF):
            return f"metal node {name} is {'on' if on else 'off'} already"
        if not on and self._holds_any(host):
            return f"metal node {name} cannot be turned off: host {self.world.model.host_name(host)} holds servers"
        return None

    def set_power(self, row: int, *, on: bool) -> None:
        """Start a change of power that `refusal` has nothing against."""
        mishap = self._mishaps.pop(row, Mishap())
        self.target[row], self.changed_at[row] = (ON if on else OFF), self.world.events.now
        self.error.pop(row, None)
        if not mishap.hangs:
            takes = (SWITCH_S if on else float(self.shutdown_s[row])) * mishap.slower
            self.world.events.at(self.world.events.now + takes, lambda: self._turned(row, failed=mishap.fails))

    def upset(self, row: int, mishap: Mishap) -> None:
        """Something goes wrong with the next change of power of a node."""
        self._mishaps[row] = mishap

    def _turned(self, row: int, *, failed: bool) -> None:
        events, host = self.world.events, int(self.host_of[row])
        target = self.target.pop(row)
        self.changed_at[row] = events.now
        if target == OFF and self._holds_any(host):  # an orderly shutdown waits for nobody and stops nobody
            self.error[row] = f"host {self.world.model.host_name(host)} received a server while it was shutting down"
            return
        if failed:
            self.error[row] = f"the management controller did not answer when the node was to be turned {WORDS[target]}"
            return
        self.power[row] = target
        if host < 0:
            return
        if target == ON:
            self._boots[row] = events.at(events.now + float(self.boot_s[row]), lambda: self.world.restore_host(host))
        else:
            events.cancel(self._boots.pop(row, None))
            self.world.lose_host(host)

    def _holds_any(self, host: int) -> bool:
        """Whether anything takes room on a host: who is there, on the way, or being resized to it."""
        return host >= 0 and bool((self.world.place.used[:, host] > ROUNDING).any())
