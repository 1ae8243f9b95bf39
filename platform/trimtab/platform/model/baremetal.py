"""The baremetal model: metal nodes with their power, and which compute host runs on each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import pyarrow as pa

from trimtab.platform.model.tables import Bools, Codes, InputTable, Ints, table_of

METAL_COLUMNS: Mapping[str, tuple[pa.DataType, Any]] = {
    "uuid": (pa.string(), None),
    "name": (pa.string(), ""),
    "hostname": (pa.string(), ""),  # of the compute host that runs on it; "" = none
    "power": (pa.string(), None),
    "maintenance": (pa.bool_(), False),
    "maintenance_reason": (pa.string(), ""),
    "backend": (pa.string(), "ironic"),
}
POWER = ("on", "off", "unknown")
ON, OFF, UNKNOWN = 0, 1, 2
BACKENDS = ("ironic", "maas")


@dataclass(frozen=True)
class BaremetalModel:
    """Metal nodes M; frozen. `power` [M]: ON, OFF or UNKNOWN (turning, in error)."""

    ids: pa.Array
    names: pa.Array
    hostnames: pa.Array
    power: Ints
    maintenance: Bools
    maintenance_reason: Codes
    backend: Ints
    excluded: Bools

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, np.ndarray) and value.flags.writeable:
                value.flags.writeable = False

    @property
    def nodes(self) -> int:
        """Number of metal nodes."""
        return len(self.ids)

    def with_changes(self, **changes: Any) -> BaremetalModel:
        """A copy with some columns replaced."""
        return replace(self, **changes)

    @classmethod
    def from_arrow(cls, nodes: pa.Table) -> BaremetalModel:
        """Build and check a model from a table with the columns of `METAL_COLUMNS`.

        Raises:
            ModelError: names the row and the remedy.
        """
        m = InputTable("metal_nodes", nodes, METAL_COLUMNS)
        m.check_unique("uuid")
        return cls(
            ids=m["uuid"],
            names=m["name"],
            hostnames=m["hostname"],
            power=m.one_of("power", POWER),
            maintenance=m.flags("maintenance"),
            maintenance_reason=m.codes("maintenance_reason"),
            backend=m.one_of("backend", BACKENDS),
            excluded=np.zeros(len(m), bool),
        )

    def to_arrow(self) -> pa.Table:
        """As `from_arrow` takes it."""
        columns = {
            "uuid": self.ids,
            "name": self.names,
            "hostname": self.hostnames,
            "power": np.array(POWER)[self.power],
            "maintenance": self.maintenance,
            "maintenance_reason": self.maintenance_reason.texts(),
            "backend": np.array(BACKENDS)[self.backend],
        }
        return table_of(columns, METAL_COLUMNS)
