"""A real OpenStack control plane of small size on this machine, as tests look at it and disturb it.

The folder that TRIMTAB_LAB names has a `clouds.yaml` with a cloud `lab` (an administrator's), `run/NAME.pid` of every
service's process (`nova-api`, and `compute-HOST` of each host), and `etc/nova` and `etc/cinder`. Prometheus listens on
port 29090, RabbitMQ on 25672 (user and password `lab`; Nova's exchange `nova`, topic `nova.versioned_notifications`).
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from itertools import cycle
from pathlib import Path
from typing import Any

import psutil
from openstack.config import OpenStackConfig
from openstack.connection import Connection

USER, PASSWORD = "trimtab-optimizer", "trimtab-optimizer"
ENDED = {"completed", "confirmed", "error", "failed", "cancelled", "reverted"}  # migrations that are over
QUIET_S = 30.0  # longer than Nova takes from a request to the record of a migration
ROLES = ("service", "optimizer")
NEW = "lab.small"


def folder_of_lab() -> Path | None:
    """Where a lab is; None when none was named."""
    named = os.environ.get("TRIMTAB_LAB")
    return Path(named) if named else None


class Lab:
    """What Nova says, and what can go wrong with it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clouds = folder / "clouds.yaml"
        region = OpenStackConfig(config_files=[str(self.clouds)]).get_one(cloud="lab")
        self.cloud: Any = Connection(config=region)  # its proxies are made at run time

    # -- what there is -----------------------------------------------------------------------------------------

    def nova(self, method: str, path: str, body: Any = None, **query: Any) -> Any:
        """Ask Nova, as its administrator."""
        for _ in range(60):  # it may be restarting: whoever looks on has patience
            try:
                answer = self.cloud.compute.request(path, method, json=body, params=query, microversion="2.88")
            except Exception as error:  # noqa: BLE001
                last: object = error
            else:
                if answer.status_code < 500:
                    assert answer.status_code < 400, answer.text
                    return answer.json() if answer.content else None
                last = answer.text
            time.sleep(0.5)
        raise AssertionError(f"Nova does not answer {method} {path}: {last}")

    def servers(self) -> dict[str, dict[str, Any]]:
        """All servers by id."""
        return {one["id"]: one for one in self.nova("GET", "/servers/detail", all_tenants="1")["servers"]}

    def where(self) -> dict[str, str]:
        """The host of every server."""
        return {uuid: one["OS-EXT-SRV-ATTR:host"] for uuid, one in self.servers().items()}

    def services(self) -> dict[str, str]:
        """Of every host: enabled or disabled."""
        listed = self.nova("GET", "/os-services", binary="nova-compute")["services"]
        return {one["host"]: one["status"] for one in listed}

    def up(self) -> dict[str, bool]:
        """Of every host: whether Nova takes it to be up."""
        listed = self.nova("GET", "/os-services", binary="nova-compute")["services"]
        return {one["host"]: one["state"] == "up" for one in listed}

    def migrations(self, since: float = 0.0) -> list[dict[str, Any]]:
        """All migrations Nova recorded since a moment."""
        after = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(since))
        return list(self.nova("GET", "/os-migrations", **{"changes-since": after})["migrations"])

    def tokens(self) -> dict[str, str]:
        """Headers of an administrator's request."""
        return {"X-Auth-Token": str(self.cloud.auth_token)}

    # -- what tests make -----------------------------------------------------------------------------------------

    def make_user(self) -> None:
        """A user of Trimtab's own with the least roles, and the policies for it, as the page on deploying has them."""
        identity = self.cloud.identity
        for role in ROLES:
            if not list(identity.roles(name=role)):
                identity.create_role(name=role)
        (project,) = identity.projects(name="service")
        user = next(iter(identity.users(name=USER)), None) or identity.create_user(name=USER, password=PASSWORD)
        for role in ROLES:
            identity.assign_project_role_to_user(project, user, next(iter(identity.roles(name=role))))
        page = (Path(__file__).parents[2] / "docs" / "deploy.md").read_text()
        for service, text in re.findall(r"```yaml\n# (\w+)'s policy.yaml\n(.*?)```", page, re.DOTALL):
            file = self.folder / "etc" / service.lower() / "policy.yaml"
            if not file.exists() or file.read_text() != text:
                file.write_text(text)

    def make_endpoint(self, url: str) -> None:
        """The catalogue's service `infra-optim` is here now."""
        identity = self.cloud.identity
        known = list(identity.services(type="infra-optim"))
        service = known[0] if known else identity.create_service(type="infra-optim", name="watcher")
        for old in identity.endpoints(service_id=service.id):
            identity.delete_endpoint(old)
        identity.create_endpoint(service_id=service.id, interface="public", url=url, region_id="RegionOne")

    def make_servers(self, count: int) -> None:
        """So many servers at least."""
        there = self.servers()
        compute = self.cloud.compute
        image = next(iter(self.cloud.image.images()))
        flavor = next(one for one in compute.flavors() if one.name == NEW)
        fresh = [
            compute.create_server(name=f"more-{n:03d}", image_id=image.id, flavor_id=flavor.id, networks="none")
            for n in range(len(there), count)
        ]
        self.until(lambda: all(self.servers()[one.id]["status"] == "ACTIVE" for one in fresh), 180)

    def lasting(self, servers: Sequence[str], seconds: float | None) -> None:
        """How long live migrations of these servers take; None is the usual time."""
        for server in servers:
            if seconds is None:
                one = self.servers()[server]
                if "lab_migration_seconds" in one["metadata"] and one["status"] != "ERROR":
                    self.nova("DELETE", f"/servers/{server}/metadata/lab_migration_seconds")
            else:
                body = {"metadata": {"lab_migration_seconds": str(seconds)}}
                self.nova("POST", f"/servers/{server}/metadata", body)

    def movable(self) -> list[str]:
        """Active servers in no group and not locked, by name; none that is being mended."""
        groups = self.nova("GET", "/os-server-groups", all_projects="true")["server_groups"]
        grouped = {member for group in groups for member in group["members"]}
        free = [
            one for one in self.servers().values()
            if one["status"] == "ACTIVE" and one["OS-EXT-STS:power_state"] == 1
            and one["id"] not in grouped and not one["locked"]
        ]  # fmt: skip
        return [one["id"] for one in sorted(free, key=lambda one: str(one["name"]))]

    def unbalance(self) -> None:
        """Spread the servers unevenly within their zones: the first hosts have most, and none has nothing."""
        services = self.nova("GET", "/os-services", binary="nova-compute")["services"]
        zone_of, where = {one["host"]: one["zone"] for one in services}, self.where()
        wanted = dict[str, str]()
        for zone in sorted(set(zone_of.values())):
            hosts = [host for host in sorted(zone_of) if zone_of[host] == zone]
            turn = cycle([host for nth, host in enumerate(hosts) for _ in range(len(hosts) - nth)])
            wanted |= {server: next(turn) for server in self.movable() if zone_of[where[server]] == zone}
        self.until(self.calm, 600)
        for _ in range(3):  # Nova may refuse one while it is busy with others
            late = [server for server, at in self.where().items() if wanted.get(server, at) != at]
            for server in late:
                body = {"os-migrateLive": {"host": wanted[server], "block_migration": "auto"}}
                self.nova("POST", f"/servers/{server}/action", body)
            self.until(self.calm, 600)
        here = self.where()
        assert {server: here[server] for server in wanted} == wanted

    def calm(self) -> bool:
        """Whether nothing is being done to any server; puts right what nobody else does."""
        self.mend()
        return not any(one["OS-EXT-STS:task_state"] for one in self.servers().values())

    def mend(self) -> None:
        """Servers that trouble left in ERROR, or moving with nobody who moves them, are active again."""
        moving = {one["instance_uuid"] for one in self.migrations() if one["status"] not in ENDED}
        for uuid, one in self.servers().items():
            quiet = time.time() - datetime.fromisoformat(one["updated"]).timestamp() > QUIET_S
            stuck = one["OS-EXT-STS:task_state"] == "migrating" and uuid not in moving and quiet
            if one["status"] == "ERROR" or stuck:
                self.nova("POST", f"/servers/{uuid}/action", {"os-resetState": {"state": "active"}})
                self.lasting([uuid], None)
            elif one["status"] == "ACTIVE" and one["OS-EXT-STS:power_state"] == 0:  # so a broken migration leaves it
                self.nova("POST", f"/servers/{uuid}/action", {"reboot": {"type": "HARD"}})

    def heal(self) -> None:
        """Placement and Neutron know every server once, where it is: a host that died during migrations leaves more."""
        self.until(self.calm, 600)
        servers = self.servers()
        held: dict[str, dict[str, Any]] = {}
        for one in self._placement("GET", "/resource_providers")["resource_providers"]:
            there = self._placement("GET", f"/resource_providers/{one['uuid']}/allocations")["allocations"]
            for consumer, what in there.items():
                held.setdefault(consumer, {})[one["name"]] = (one["uuid"], what["resources"])
        for consumer, by_host in held.items():
            if consumer not in servers:
                self._placement("DELETE", f"/allocations/{consumer}")
            elif set(by_host) != {(at := servers[consumer]["OS-EXT-SRV-ATTR:hypervisor_hostname"])} and at in by_host:
                now = self._placement("GET", f"/allocations/{consumer}")
                provider, resources = by_host[at]
                body = {name: now[name] for name in ("project_id", "user_id", "consumer_generation")}
                body["allocations"] = {provider: {"resources": resources}}
                self._placement("PUT", f"/allocations/{consumer}", body)
        who = {"username": USER, "password": PASSWORD, "project_name": "service"}  # bindings are for services alone
        network: Any = Connection(
            auth={**self.cloud.config.get_auth_args(), **who}, region_name=self.cloud.config.region_name
        ).network
        for port in self.cloud.network.ports():
            if (owner := servers.get(port.device_id)) is not None:
                for binding in network.get(f"/ports/{port.id}/bindings").json()["bindings"]:
                    if binding["host"] != owner["OS-EXT-SRV-ATTR:host"]:
                        gone = network.delete(f"/ports/{port.id}/bindings/{binding['host']}")
                        assert gone.status_code == 204, gone.text

    def _placement(self, method: str, path: str, body: Any = None) -> Any:
        answer = self.cloud.placement.request(path, method, json=body, microversion="1.28")
        assert answer.status_code < 300, answer.text
        return answer.json() if answer.content else None

    def enable_all(self) -> None:
        """No host is closed."""
        for one in self.nova("GET", "/os-services", binary="nova-compute")["services"]:
            if one["status"] != "enabled":
                self.nova("PUT", f"/os-services/{one['id']}", {"status": "enabled"})

    # -- trouble -------------------------------------------------------------------------------------------------

    def process(self, name: str) -> psutil.Process:
        """The process of one service."""
        return psutil.Process(int((self.folder / "run" / f"{name}.pid").read_text().split()[0]))

    @contextmanager
    def dead(self, host: str) -> Iterator[None]:
        """A host whose compute service does nothing any more, until Nova takes it to be down; then it is back."""
        process = self.process(f"compute-{host}")
        process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            process.send_signal(signal.SIGCONT)
            self.until(lambda: self.up()[host], 120)

    def restart_api(self, away_s: float = 2.0) -> None:
        """Nova's API is killed, and comes back as it was."""
        old = self.process("nova-api")
        command, environment, where = old.cmdline(), old.environ(), old.cwd()
        for one in [*old.children(recursive=True), old]:
            one.kill()
        old.wait(10)
        time.sleep(away_s)
        with (self.folder / "log" / "nova-api.out").open("ab") as out:
            fresh = subprocess.Popen(
                command, env=environment, cwd=where, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                start_new_session=True,
            )  # fmt: skip
        started = Path(f"/proc/{fresh.pid}/stat").read_text().rpartition(")")[2].split()[19]
        (self.folder / "run" / "nova-api.pid").write_text(f"{fresh.pid} {started}\n")
        self.nova("GET", "/os-services")

    def revoke(self) -> None:
        """All tokens of Trimtab's user are worth nothing from now on."""
        (user,) = self.cloud.identity.users(name=USER)
        self.cloud.identity.update_user(user, is_enabled=False)
        self.cloud.identity.update_user(user, is_enabled=True)

    def until(self, said: Callable[[], object], within_s: float) -> Any:
        """Wait for something to be so."""
        deadline = time.monotonic() + within_s
        while not (found := said()):
            assert time.monotonic() < deadline, "it never happened"
            time.sleep(0.3)
        return found


def migrate(lab: Lab, server: str, to: str, *, kind: str = "live") -> dict[str, Any]:
    """An action as the actuator takes it."""
    here = lab.where()[server]
    return {
        "action_type": "migrate",
        "resource_id": server,
        "input_parameters": {"migration_type": kind, "source_node": here, "destination_node": to},
    }


def elsewhere(lab: Lab, servers: Iterable[str], avoid: Iterable[str] = ()) -> dict[str, str]:
    """Another host of the same zone for each server, in turn."""
    services = lab.nova("GET", "/os-services", binary="nova-compute")["services"]
    zone = {one["host"]: one["zone"] for one in services}
    where, taken, found = lab.where(), Counter[str](), {}
    for server in servers:
        hosts = [h for h in sorted(zone) if zone[h] == zone[where[server]] and h != where[server] and h not in avoid]
        found[server] = min(hosts, key=lambda host: taken[host])
        taken[found[server]] += 1
    return found


def begun(lab: Lab, since: float) -> Counter[str]:
    """How often each server was asked to move since then, according to Nova."""
    return Counter(one["instance_uuid"] for one in lab.migrations(since))


def clouds_yaml(lab: Lab, into: Path) -> Path:
    """A clouds.yaml with Trimtab's own user."""
    text = lab.clouds.read_text()
    first = text.split("  lab-system:")[0]
    into.write_text(
        first.replace("username: admin", f"username: {USER}")
        .replace("password: lab", f"password: {PASSWORD}")
        .replace("project_name: admin", "project_name: service")
    )
    return into


def options_of(lab: Lab, file: Path) -> Mapping[str, str]:
    """TRIMTAB_* of a Trimtab that looks after the lab."""
    return {
        "OS_CLIENT_CONFIG_FILE": str(file),
        "TRIMTAB_DRIVER": "openstack",
        "TRIMTAB_OPENSTACK__CLOUD": "lab",
        "TRIMTAB_DATASOURCES": "prometheus",
        "TRIMTAB_PROMETHEUS_CLIENT__HOST": "127.0.0.1",
        "TRIMTAB_PROMETHEUS_CLIENT__PORT": "29090",
        # Long, so that what Nova tells on its bus is what keeps the model true.
        "TRIMTAB_COLLECT_INTERVAL_S": "60",
        "TRIMTAB_OPENSTACK__NOTIFICATIONS_URL": "rabbit://lab:lab@127.0.0.1:25672//",
        "TRIMTAB_OPENSTACK__NOTIFICATION_TOPICS": "nova.nova.versioned_notifications",
        "TRIMTAB_OPENSTACK__NOTIFICATION_POOL": "trimtab-tests",
        "TRIMTAB_HORIZON_S": "600",
        "TRIMTAB_MIGRATION_INTERVAL_S": "1",
        "TRIMTAB_MIGRATION_DEADLINE_S": "180",
        "TRIMTAB_HISTORY_S": "3600",
        "TRIMTAB_AUTH": "keystone",
        "TRIMTAB_KEYSTONE_AUTHTOKEN__AUTH_URL": str(lab.cloud.config.get_auth_args()["auth_url"]),
        "TRIMTAB_KEYSTONE_AUTHTOKEN__USERNAME": USER,
        "TRIMTAB_KEYSTONE_AUTHTOKEN__PASSWORD": PASSWORD,
        "TRIMTAB_KEYSTONE_AUTHTOKEN__PROJECT_NAME": "service",
    }
