"""host_maintenance from an audit to the emptied host: Watcher's functional scenarios on the simulated cloud."""

from collections.abc import Sequence
from typing import Any

from trimtab.platform.model import MEMORY, ClusterModel


async def audited(trimtab: Any, scope: Sequence[Any] = (), **parameters: Any) -> dict[str, Any]:
    """A one-shot audit by way of a template, which is where a scope is given, when it has ended."""
    kind = {"goal": "cluster_maintaining", "strategy": "host_maintenance"}
    name = f"maintenance {len((await trimtab.get('/v1/audit_templates'))['audit_templates'])}"
    template = await trimtab.post("/v1/audit_templates", {"name": name, **kind, "scope": list(scope)})
    wanted = {"audit_type": "ONESHOT", "audit_template_uuid": template["uuid"], "parameters": parameters}
    audit = await trimtab.post("/v1/audits", wanted)
    return dict(await trimtab.ended(f"/v1/audits/{audit['uuid']}"))


async def applied(trimtab: Any, audit: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The plan of an audit after it has run, and its actions."""
    assert audit["state"] == "SUCCEEDED", audit["status_message"]
    (plan,) = (await trimtab.get("/v1/action_plans/detail", audit_uuid=audit["uuid"]))["action_plans"]
    await trimtab.post(f"/v1/action_plans/{plan['uuid']}/start", {})
    plan = await trimtab.ended(f"/v1/action_plans/{plan['uuid']}")
    return plan, (await trimtab.get("/v1/actions/detail", action_plan_uuid=plan["uuid"]))["actions"]


def by_residents(cloud: Any) -> list[str]:
    """Hosts that hold something, the emptiest first."""
    names = [name for name in cloud.inventory().hosts["hostname"].to_pylist() if cloud.residents(name)]
    return sorted(names, key=lambda name: (len(cloud.residents(name)), name))


def roomiest(cloud: Any, but: str) -> str:
    """The host with the most memory left, of all but one."""
    inventory = cloud.inventory()
    model = ClusterModel.from_arrow(inventory.hosts, inventory.instances, inventory.groups)
    left = (model.capacity - model.used())[:, MEMORY]
    left[model.host_rows_by_name([but])] = -1
    return model.host_name(int(left.argmax()))


def leaving(actions: Sequence[dict[str, Any]]) -> set[str]:
    return {a["input_parameters"]["resource_id"] for a in actions if a["action_type"] == "migrate"}


async def test_instances_are_on_the_backup_when_the_plan_has_run(working: Any) -> None:
    """D11: disable and live migrations to the backup; what the backup has no room for goes where the cloud chooses."""
    host = by_residents(working.cloud)[0]
    before = {server.id for server in working.cloud.residents(host)}
    backup = roomiest(working.cloud, but=host)
    plan, actions = await applied(working, await audited(working, maintenance_node=host, backup_node=backup))
    assert plan["state"] == "SUCCEEDED", [a["status_message"] for a in actions]
    assert leaving(actions) == before
    assert working.cloud.residents(host) == []
    sent = {
        a["input_parameters"]["resource_id"] for a in actions if a["input_parameters"].get("destination_node") == backup
    }
    assert sent
    assert sent <= {server.id for server in working.cloud.residents(backup)}
    assert not working.cloud.service(host).enabled
    assert working.cloud.service(host).disabled_reason == "watcher_maintaining"


async def test_an_excluded_instance_stays_and_an_excluded_host_is_no_backup(working: Any) -> None:
    """D11, scope excluding vm-1: Watcher migrates it all the same, its bug 2154805."""
    host, backup, *_ = by_residents(working.cloud)
    stays = working.cloud.residents(host)[0].id
    scope = [{"compute": [{"exclude": [{"instances": [{"uuid": stays}]}]}]}]
    before = {server.id for server in working.cloud.residents(host)}
    plan, actions = await applied(working, await audited(working, scope, maintenance_node=host))
    assert plan["state"] == "SUCCEEDED", [a["status_message"] for a in actions]
    assert leaving(actions) == before - {stays}
    assert [server.id for server in working.cloud.residents(host)] == [stays]
    scope = [{"compute": [{"exclude": [{"compute_nodes": [{"name": backup}]}]}]}]
    ended = await audited(working, scope, maintenance_node=host, backup_node=backup)
    assert ended["state"] == "FAILED"
    assert f"backup_node: there is no compute node '{backup}' in the audit's scope" in ended["status_message"]


async def test_a_host_outside_the_scope_fails_the_audit(working: Any) -> None:
    """D11, last row."""
    host = by_residents(working.cloud)[0]
    scope = [{"compute": [{"exclude": [{"compute_nodes": [{"name": host}]}]}]}]
    ended = await audited(working, scope, maintenance_node=host)
    assert ended["state"] == "FAILED"
    assert f"maintenance_node: there is no compute node '{host}'" in ended["status_message"]
