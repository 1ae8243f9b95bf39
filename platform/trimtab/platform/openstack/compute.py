"""Nova's and Placement's answers as the tables of the compute model; pure, and one odd row never spoils the rest."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import pyarrow as pa

from trimtab.platform.model.compute import STATES, GroupPolicy
from trimtab.platform.model.tables import GROUP_COLUMNS, HOST_COLUMNS, INSTANCE_COLUMNS, table_of_rows

Row = dict[str, Any]
Inventories = Mapping[str, Mapping[str, Mapping[str, Any]]]  # provider uuid -> resource class -> inventory

# Nova's vm_state values that Watcher's model knows by another name.
OTHER_STATES: Final = {"shelved_offloaded": "shelved"}
POLICIES: Final = frozenset(policy.wire for policy in GroupPolicy)
# our column: Placement's resource class, and the hypervisor's own figure that stands in when Placement is silent
CLASSES: Final = {
    "vcpus": ("VCPU", "vcpus", "vcpu_reserved", "vcpu_ratio"),
    "memory_mb": ("MEMORY_MB", "memory_mb", "memory_mb_reserved", "memory_ratio"),
    "disk_gb": ("DISK_GB", "local_gb", "disk_gb_reserved", "disk_ratio"),
}


def is_metal(hypervisor: Mapping[str, Any]) -> bool:
    """Whether a hypervisor is a metal node that Nova rents out as a whole: not a host of this model."""
    return str(hypervisor.get("hypervisor_type", "")).lower() == "ironic"


def host_row(
    hypervisor: Mapping[str, Any],
    service: Mapping[str, Any] | None,
    aggregates: Sequence[str],
    inventory: Mapping[str, Mapping[str, Any]] | None,
    traits: Sequence[str],
) -> Row:
    """One host.

    Args:
        hypervisor: of `GET /os-hypervisors/detail`.
        service: its nova-compute, of `GET /os-services`; None when Nova lists none.
        aggregates: names and numbers of those it is in.
        inventory: its Placement inventory by resource class; None when Placement could not be asked.
        traits: of its provider.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: the row cannot be understood.
    """
    inside = hypervisor["service"]
    row: Row = {
        "uuid": str(hypervisor["id"]),
        "hostname": str(inside["host"]),
        "state": "up" if hypervisor.get("state") == "up" else "down",
        "status": "disabled" if hypervisor.get("status") == "disabled" else "enabled",
        "disabled_reason": inside.get("disabled_reason") or "",
        "zone": "nova",
        "aggregates": list(aggregates),
        "traits": list(traits),
    }
    if service is not None:
        row["zone"] = service.get("zone") or "nova"
        row["state"] = "up" if service.get("state") == "up" and row["state"] == "up" else "down"
    for column, (resource_class, own, reserved, ratio) in CLASSES.items():
        found = (inventory or {}).get(resource_class)
        if found is None and resource_class == "VCPU":  # hosts that give out whole cores only
            found = (inventory or {}).get("PCPU")
        if found is None:
            row[column], row[reserved], row[ratio] = float(hypervisor.get(own) or 0), 0.0, 1.0
        else:
            row[column] = float(found["total"])
            row[reserved] = min(float(found.get("reserved", 0)), row[column])
            row[ratio] = float(found.get("allocation_ratio", 1.0))
        if not all(math.isfinite(row[name]) and row[name] >= 0 for name in (column, reserved, ratio)):
            raise ValueError(f"{resource_class} is {row[column]} with {row[reserved]} reserved")
    return row


def instance_row(server: Mapping[str, Any], host_uuid: str | None, group: str) -> Row:
    """One instance, of `GET /servers/detail`.

    Its disk is the flavor's (none when it boots from a volume) with ephemeral disk and swap, in GB, as Nova accounts.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: the row cannot be understood.
    """
    flavor = server["flavor"]
    state = str(server.get("OS-EXT-STS:vm_state") or "active")
    state = OTHER_STATES.get(state, state)
    root = float(flavor.get("disk") or 0) if server.get("image") else 0.0
    return {
        "uuid": str(server["id"]),
        "name": server.get("name") or "",
        "node": host_uuid,
        "vcpus": float(flavor["vcpus"]),
        "memory_mb": float(flavor["ram"]),
        "disk_gb": root + float(flavor.get("ephemeral") or 0) + math.ceil(float(flavor.get("swap") or 0) / 1024),
        "state": state if state in STATES else "error",
        "project": server.get("tenant_id") or "",
        "flavor": flavor.get("original_name") or "",
        "flavor_specs": json.dumps(flavor.get("extra_specs") or {}, sort_keys=True),
        "metadata": json.dumps(server.get("metadata") or {}, sort_keys=True),
        "locked": bool(server.get("locked")),
        "pinned_zone": server.get("pinned_availability_zone") or "",
        "group": group,
        "created": server.get("created") or "",
    }


def aggregates_of(aggregates: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
    """By service host: names and numbers of the aggregates it is in."""
    of: dict[str, list[str]] = {}
    for aggregate in aggregates:
        for host in aggregate.get("hosts") or ():
            of.setdefault(host, []).extend([str(aggregate["name"]), str(aggregate["id"])])
    return of


def groups_of(groups: Iterable[Mapping[str, Any]]) -> tuple[list[Row], dict[str, str]]:
    """Rows of the server groups, and the group of every member."""
    rows: list[Row] = []
    of: dict[str, str] = {}
    for group in groups:
        policy = group.get("policy") or next(iter(group.get("policies") or ()), None)
        if policy not in POLICIES:
            continue
        rows.append({"uuid": str(group["id"]), "name": group.get("name") or "", "policy": policy})
        for member in group.get("members") or ():
            of[str(member)] = str(group["id"])
    return rows, of


def tables(
    hosts: Sequence[Row], instances: Sequence[Row], groups: Sequence[Row]
) -> tuple[pa.Table, pa.Table, pa.Table]:
    """The three tables that `ClusterModel.from_arrow` takes."""
    return (
        table_of_rows(hosts, HOST_COLUMNS),
        table_of_rows(instances, INSTANCE_COLUMNS),
        table_of_rows(groups, GROUP_COLUMNS),
    )
