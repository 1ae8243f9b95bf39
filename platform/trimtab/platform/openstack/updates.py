"""Nova's versioned notifications as changes of the book: what happened to instances and compute services; pure."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, Final

from trimtab.platform.model.compute import STATES
from trimtab.platform.openstack.compute import OTHER_STATES, Row
from trimtab.platform.openstack.inventory import ODD, Book

GONE: Final = frozenset({"instance.delete.end", "instance.soft_delete.end"})
# After these an instance may not be what or where it was before.
CHANGED: Final = frozenset(
    {
        "instance.create.end",
        "instance.update",
        "instance.lock",
        "instance.unlock",
        "instance.pause.end",
        "instance.unpause.end",
        "instance.power_off.end",
        "instance.power_on.end",
        "instance.resize_confirm.end",
        "instance.restore.end",
        "instance.resume.end",
        "instance.suspend.end",
        "instance.shelve.end",
        "instance.unshelve.end",
        "instance.shutdown.end",
        "instance.rescue.end",
        "instance.unrescue.end",
        "instance.rebuild.end",
        "instance.live_migration_force_complete.end",
        "instance.live_migration_post_dest.end",
        # Watcher missed these.
        "instance.resize_revert.end",
        "instance.resize_finish.end",
        "instance.evacuate",
        "instance.live_migration_rollback.end",
        "instance.live_migration_abort.end",
    }
)
SERVICE: Final = frozenset({"service.create", "service.update"})
TOLD: Final = GONE | CHANGED | SERVICE | {"service.delete"}


def apply(book: Book, event_type: str, payload: Mapping[str, Any]) -> bool:
    """Change the book by one notification; whether anything is another than before.

    It may be told twice, or late: only what it says itself is taken over, and the next full reading has the last word.
    An instance or host that cannot be understood is left as it was. A host the book does not know comes with the next
    full reading (its size is not in a notification); until then its instances are on no host.

    Args:
        book: changed in place; rows are replaced, never changed, so that older inventories stay what they are.
        event_type: such as `instance.update`.
        payload: versioned, as on the wire.
    """
    try:
        data = payload["nova_object.data"]
        if event_type in GONE:
            return book.instances.pop(str(data["uuid"]), None) is not None
        if event_type in CHANGED:
            return _instance(book, data)
        if event_type in SERVICE:
            return _service(book, data)
        if event_type == "service.delete" and data.get("binary") == "nova-compute":
            return _without_host(book, str(data["host"]))
    except ODD:
        return False
    return False


def _instance(book: Book, data: Mapping[str, Any]) -> bool:
    state = str(data["state"])
    if state == "building":  # not on its host yet, or not for good
        return False
    uuid = str(data["uuid"])
    if state == "deleted":
        return book.instances.pop(uuid, None) is not None
    old = book.instances.get(uuid, {})
    flavor = data["flavor"]["nova_object.data"]
    state, specs = OTHER_STATES.get(state, state), flavor.get("extra_specs")
    swap_gb = math.ceil(float(flavor.get("swap") or 0) / 1024)
    root_gb = float(flavor.get("root_gb") or 0) if data.get("image_uuid") else 0.0
    row: Row = {
        "pinned_zone": "",
        "group": "",
        **old,
        "uuid": uuid,
        "name": data.get("display_name") or "",
        "node": book.host_of(str(data.get("host") or ""), str(data.get("node") or "")),
        "vcpus": float(flavor["vcpus"]),
        "memory_mb": float(flavor["memory_mb"]),
        "disk_gb": root_gb + float(flavor.get("ephemeral_gb") or 0) + swap_gb,
        "state": state if state in STATES else "error",
        "project": data.get("tenant_id") or "",
        "flavor": flavor.get("name") or "",
        "flavor_specs": old.get("flavor_specs", "{}") if specs is None else json.dumps(specs, sort_keys=True),
        "metadata": json.dumps(data.get("metadata") or {}, sort_keys=True),
        "locked": bool(data.get("locked", old.get("locked", False))),
        "created": old.get("created") or data.get("created_at") or "",
    }
    if row == old:
        return False
    book.instances[uuid] = row
    return True


def _service(book: Book, data: Mapping[str, Any]) -> bool:
    if data.get("binary") != "nova-compute":
        return False
    changed = False
    for host in list(book.names.values()):
        if host.service != data["host"]:
            continue
        old = book.hosts[host.uuid]
        new = {
            **old,
            "state": "down" if data.get("forced_down") else "up",
            "status": "disabled" if data.get("disabled") else "enabled",
            "disabled_reason": data.get("disabled_reason") or "",
        }
        if new != old:
            book.hosts[host.uuid] = new
            changed = True
    return changed


def _without_host(book: Book, service: str) -> bool:
    gone = [host.uuid for host in book.names.values() if host.service == service]
    for uuid in gone:
        del book.names[uuid], book.hosts[uuid]
    for uuid, row in list(book.instances.items()):
        if row["node"] in gone:
            book.instances[uuid] = {**row, "node": None}
    return bool(gone)
