"""Cinder's answers as the tables of the storage model; pure, and one odd row never spoils the rest."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import pyarrow as pa

from trimtab.platform.contracts import Pool, Volume, VolumeType
from trimtab.platform.model.storage import POOL_COLUMNS, STORAGE_NODE_COLUMNS, VOLUME_COLUMNS, VOLUME_TYPE_COLUMNS
from trimtab.platform.model.tables import table_of_rows
from trimtab.platform.openstack.moments import seconds_of

Row = Mapping[str, Any]
BACKEND: Final = "volume_backend_name"
# Cinder's migration states; "" stands for a volume that never moved.
UNDER_WAY: Final = frozenset({"starting", "migrating", "completing"})


def gigabytes(value: Any, unknown: float = math.nan) -> float:
    """An amount that a backend reports: a number, text of a number, "infinite" or "unknown"."""
    if value in ("infinite", "inf"):
        return math.inf
    try:
        amount = float(value)
    except (TypeError, ValueError):
        return unknown
    return amount if amount >= 0 else unknown


def tables(
    services: Iterable[Row],
    pools: Iterable[Row],
    types: Iterable[Row],
    volumes: Iterable[Row],
    snapshots: Iterable[Row],
) -> tuple[pa.Table, pa.Table, pa.Table, pa.Table]:
    """Nodes, pools, types and volumes, as `StorageModel.from_arrow` takes them.

    Args:
        services: of `GET /os-services?binary=cinder-volume`.
        pools: of `GET /scheduler-stats/get_pools?detail=true`.
        types: of `GET /types`.
        volumes: of `GET /volumes/detail`.
        snapshots: of `GET /snapshots`, to count them.
    """
    nodes = [_node(service) for service in services]
    hosts = {node["host"] for node in nodes}
    rows = {pool["name"]: _pool(pool, hosts) for pool in pools}
    known = {volume_type["name"]: _type(volume_type) for volume_type in types}
    count = Counter(str(snapshot.get("volume_id")) for snapshot in snapshots)
    moving = shadows(volumes := list(volumes))
    kept = [
        _volume(one, rows.keys(), known.keys(), count[str(one["id"])], moving) for one in volumes if not _shadow(one)
    ]
    return (
        table_of_rows(nodes, STORAGE_NODE_COLUMNS),
        table_of_rows(list(rows.values()), POOL_COLUMNS),
        table_of_rows(list(known.values()), VOLUME_TYPE_COLUMNS),
        table_of_rows(kept, VOLUME_COLUMNS),
    )


def shadows(volumes: Iterable[Row]) -> frozenset[str]:
    """Ids of the volumes that another volume is a copy of while they move."""
    return frozenset(filter(None, (_shadow(volume) for volume in volumes)))


def volume(one: Row, moving: frozenset[str]) -> Volume:
    """One volume as the port tells of it; `moving` are ids of volumes whose shadow is still there."""
    migration = one.get("migration_status") or ""
    if one["id"] in moving or migration in UNDER_WAY:
        migration = "migrating"
    return Volume(
        id=str(one["id"]),
        name=one.get("name") or "",
        pool=one.get("os-vol-host-attr:host") or "",
        status=str(one.get("status") or ""),
        migration_status="" if migration == "none" else migration,
        type=one.get("volume_type") or "",
        size_gb=float(one.get("size") or 0),
        attached_to=_servers(one),
        updated_at=seconds_of(one.get("updated_at") or one.get("created_at")),
    )


def pool(one: Row) -> Pool:
    """One pool as the port tells of it."""
    capabilities = one.get("capabilities") or {}
    return Pool(
        name=str(one["name"]),
        free_gb=gigabytes(capabilities.get("free_capacity_gb")),
        reports={key: str(value) for key, value in capabilities.items() if isinstance(value, str | int | float | bool)},
    )


def volume_type(one: Row) -> VolumeType:
    """One type as the port tells of it."""
    specs = {key: str(value) for key, value in (one.get("extra_specs") or {}).items()}
    return VolumeType(name=str(one["name"]), extra_specs=specs)


def _node(service: Row) -> dict[str, Any]:
    return {
        "host": str(service["host"]),
        "zone": service.get("zone") or "nova",
        "status": "disabled" if service.get("status") == "disabled" else "enabled",
        "state": "down" if service.get("state") == "down" else "up",
    }


def _pool(one: Row, hosts: set[str]) -> dict[str, Any]:
    name, told = str(one["name"]), one.get("capabilities") or {}
    node = name.partition("#")[0]
    return {
        "name": name,
        "node": node if node in hosts else None,
        "backend": told.get(BACKEND) or "",
        "total_gb": gigabytes(told.get("total_capacity_gb")),
        "free_gb": gigabytes(told.get("free_capacity_gb")),
        "provisioned_gb": gigabytes(told.get("provisioned_capacity_gb"), 0.0),
        "allocated_gb": gigabytes(told.get("allocated_capacity_gb"), 0.0),
        "over_subscription": gigabytes(told.get("max_over_subscription_ratio"), 1.0) or 1.0,
    }


def _type(one: Row) -> dict[str, Any]:
    specs = dict(one.get("extra_specs") or {})
    return {
        "name": str(one["name"]),
        "backend": specs.pop(BACKEND, ""),
        "extra_specs": json.dumps(specs, sort_keys=True),
    }


def _volume(
    one: Row, pools: Iterable[str], types: Iterable[str], snapshots: int, moving: frozenset[str]
) -> dict[str, Any]:
    now = volume(one, moving)
    return {
        "uuid": now.id,
        "name": now.name,
        "size_gb": now.size_gb,
        "pool": now.pool if now.pool in pools else None,
        "status": now.status or "available",
        "migration_status": now.migration_status,
        "type": now.type if now.type in types else "",
        "bootable": str(one.get("bootable")).lower() == "true",
        "multiattach": bool(one.get("multiattach")),
        "snapshots": float(snapshots),
        "attached_to": list(now.attached_to),
        "project": one.get("os-vol-tenant-attr:tenant_id") or "",
        "metadata": json.dumps(one.get("metadata") or {}, sort_keys=True),
        "created": one.get("created_at") or "",
    }


def _shadow(one: Row) -> str:
    """The id of the volume that this one is a copy of while it moves; "" when it is a volume in its own right.

    The copy is the target until the move is over; then it takes over the old data and is deleted.
    """
    status = str(one.get("migration_status") or "")
    if status.startswith("target:"):
        return status.partition(":")[2]
    return str(one.get("os-vol-mig-status-attr:name_id") or "") if one.get("status") == "deleting" else ""


def _servers(one: Row) -> tuple[str, ...]:
    attachments: Sequence[Row] = one.get("attachments") or ()
    return tuple(str(attachment["server_id"]) for attachment in attachments if attachment.get("server_id"))
