"""Ironic's answers as the table of the baremetal model; pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import pyarrow as pa

from trimtab.platform.contracts import MetalNode
from trimtab.platform.model.baremetal import METAL_COLUMNS
from trimtab.platform.model.tables import table_of_rows
from trimtab.platform.openstack.moments import seconds_of

FIELDS: Final = "uuid,name,power_state,target_power_state,last_error,maintenance,maintenance_reason,extra"
ON: Final = frozenset({"power on", "rebooting", "soft rebooting"})
OFF: Final = frozenset({"power off", "soft power off"})


def power(word: Any) -> str:
    """Ironic's word for power as ours: on, off or unknown."""
    return "on" if word in ON else "off" if word in OFF else "unknown"


def node(one: Mapping[str, Any], host_of: Mapping[str, str]) -> MetalNode:
    """One node, of `GET /v1/nodes`.

    Args:
        one: its fields; `FIELDS` at least.
        host_of: names of compute hosts by hypervisor id and by name; a node tells its own in `extra.compute_node_id`.
    """
    named = str((one.get("extra") or {}).get("compute_node_id") or "")
    target = one.get("target_power_state")
    return MetalNode(
        id=str(one["uuid"]),
        name=one.get("name") or "",
        hostname=host_of.get(named, ""),
        power=power(one.get("power_state")),
        target=power(target) if target else "",
        error=one.get("last_error") or "",
        maintenance=bool(one.get("maintenance")),
        changed_at=seconds_of(one.get("updated_at")),
    )


def table(nodes: Iterable[Mapping[str, Any]], host_of: Mapping[str, str]) -> pa.Table:
    """All nodes, as `BaremetalModel.from_arrow` takes them."""
    rows = []
    for one in nodes:
        told = node(one, host_of)
        rows.append(
            {
                "uuid": told.id,
                "name": told.name,
                "hostname": told.hostname,
                "power": "unknown" if told.target and told.target != told.power else told.power,
                "maintenance": told.maintenance,
                "maintenance_reason": one.get("maintenance_reason") or "",
                "backend": "ironic",
            }
        )
    return table_of_rows(rows, METAL_COLUMNS)
