"""A stand-in for an OpenStack cloud: Keystone, Nova, Placement, Cinder and Ironic over real HTTP, which count calls.

Shapes of the answers are those that real services of 2026 gave to the same questions.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Protocol, TypeVar

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

PAGE = 1000


def uuid_of(kind: int, number: int) -> str:
    """A uuid that tells what it is of."""
    return f"{kind:08x}-0000-4000-8000-{number:012x}"


class StandIn:
    """What the cloud holds, and what was asked of it."""

    def __init__(self, hosts: int, servers: int, *, full_hosts: int = 0) -> None:
        self.url = ""
        self.calls: Counter[str] = Counter()
        self.in_flight = self.most_in_flight = 0
        self.latency_s = 0.0
        self.fail: dict[str, list[int]] = {}  # path -> statuses to answer with before the real answer
        self.tokens: list[str] = []
        self.also: dict[str, str] = {}  # other services in the catalogue: their addresses by type
        self.stumbled_over: set[str] = set()  # revoked tokens that only those whom Nova asks know to be
        self._turn = threading.Lock()
        self.generation = dict.fromkeys(range(hosts), 1)
        self.full = set(range(full_hosts))
        self.hypervisors = [
            {
                "id": uuid_of(1, number),
                "hypervisor_hostname": f"cmp-{number:03d}.example",
                "hypervisor_type": "QEMU",
                "state": "up",
                "status": "enabled",
                "service": {"id": uuid_of(9, number), "host": f"cmp-{number:03d}", "disabled_reason": None},
                "vcpus": 32,
                "memory_mb": 131072,
                "local_gb": 2000,
            }
            for number in range(hosts)
        ]
        self.services = [
            {
                "id": uuid_of(9, number),
                "binary": "nova-compute",
                "host": f"cmp-{number:03d}",
                "zone": f"az-{number % 2}",
                "status": "enabled",
                "state": "up",
                "forced_down": False,
                "disabled_reason": None,
            }
            for number in range(hosts)
        ]
        self.servers: list[dict[str, Any]] = [self.server(number, number % hosts) for number in range(servers)]
        self.groups = [
            {"id": uuid_of(3, 0), "name": "apart", "policy": "anti-affinity", "members": [uuid_of(2, 0), uuid_of(2, 1)]}
        ]
        self.migrations: list[dict[str, Any]] = []
        self.actions: list[tuple[str, Any]] = []
        self.confirming: set[str] | None = None  # servers whose confirmation is under way; None: it takes no time
        self.no_valid_host = False  # what Nova says of the next migrations
        self.asked_of_placement: list[dict[str, str]] = []

    def server(self, number: int, host: int) -> dict[str, Any]:
        """One server as Nova lists it."""
        return {
            "id": uuid_of(2, number),
            "name": f"vm-{number}",
            "status": "ACTIVE",
            "OS-EXT-STS:vm_state": "active",
            "OS-EXT-STS:task_state": None,
            "OS-EXT-SRV-ATTR:host": f"cmp-{host:03d}",
            "OS-EXT-SRV-ATTR:hypervisor_hostname": f"cmp-{host:03d}.example",
            "tenant_id": "p",
            "metadata": {"role": "web"} if number % 2 else {},
            "image": "" if number == 5 else {"id": "i"},
            "locked": number == 7,
            "pinned_availability_zone": "az-1" if number == 9 else None,
            "created": "2026-11-01T00:00:00Z",
            "flavor": {
                "original_name": "m1.small", "vcpus": 1, "ram": 2048, "disk": 20, "ephemeral": 5, "swap": 1025,
                "extra_specs": {},
            },
        }  # fmt: skip

    # -- HTTP ------------------------------------------------------------------------------------------------

    def routes(self) -> list[Route]:
        """All paths that are answered."""
        answers = {
            "/identity/v3": lambda _: {"version": self._version("v3.14", "", "", "identity/v3")},
            "/compute/v2.1": lambda _: {"version": self._version("v2.1", "2.100", "2.1", "compute/v2.1")},
            "/placement": lambda _: {"versions": [self._version("v1.0", "1.39", "1.0", "placement", "max_version")]},
            "/volume/v3": lambda _: {"versions": [self._version("v3.0", "3.70", "3.0", "volume/v3")]},
            "/baremetal/v1": lambda _: {"id": "v1", "version": self._version("v1", "1.90", "1.1", "baremetal/v1")},
            "/compute/v2.1/os-hypervisors/detail": self._page("hypervisors", lambda: self.hypervisors),
            "/compute/v2.1/os-services": lambda _: {"services": self.services},
            "/compute/v2.1/os-aggregates": lambda _: {
                "aggregates": [{"id": 7, "name": "ssd", "hosts": ["cmp-000", "cmp-001"], "metadata": {}}]
            },
            "/compute/v2.1/servers/detail": self._page("servers", lambda: self.servers),
            "/compute/v2.1/os-server-groups": lambda r: {
                "server_groups": self.groups[int(r.query_params.get("offset", 0)) :]
            },
            "/compute/v2.1/os-migrations": self._migrations,
            "/placement/resource_providers": lambda _: {
                "resource_providers": [
                    {"uuid": uuid_of(1, number), "generation": generation, "parent_provider_uuid": None}
                    for number, generation in self.generation.items()
                ]
            },
            "/placement/resource_providers/{uuid}/inventories": self._inventories,
            "/placement/resource_providers/{uuid}/traits": lambda _: {"traits": ["HW_CPU_X86_AVX2"]},
            "/placement/allocation_candidates": self._candidates,
            "/volume/v3/os-services": lambda _: {"services": [{"host": "store@ssd", "zone": "z", "status": "enabled"}]},
            "/volume/v3/scheduler-stats/get_pools": lambda _: {
                "pools": [
                    {"name": "store@ssd#a", "capabilities": {"total_capacity_gb": 100, "free_capacity_gb": "infinite"}},
                    {"name": "store@ssd#b", "capabilities": {"total_capacity_gb": "unknown"}},
                ]
            },
            "/volume/v3/types": self._page("volume_types", lambda: [{"id": "t", "name": "ssd", "extra_specs": {}}]),
            "/volume/v3/volumes/detail": self._page("volumes", lambda: [self._volume()]),
            "/volume/v3/snapshots": self._page("snapshots", lambda: [{"id": "s", "volume_id": uuid_of(4, 0)}]),
            "/baremetal/v1/nodes": lambda _: {
                "nodes": [
                    {
                        "uuid": uuid_of(5, 0), "name": "metal", "power_state": "power on", "target_power_state": None,
                        "maintenance": False, "extra": {"compute_node_id": uuid_of(1, 0)},
                    }
                ]
            },
        }  # fmt: skip
        made = [Route(path, self._answer(answer)) for path, answer in answers.items()]
        made += [Route("/identity/v3/auth/tokens", self._token, methods=["POST"])]
        made += [Route("/compute/v2.1/servers/{uuid}/action", self._act, methods=["POST"])]
        made += [Route("/compute/v2.1/servers/{uuid}", self._answer(self._one))]
        told = "/compute/v2.1/servers/{uuid}/os-instance-actions"
        made += [Route(told, self._answer(lambda _: {"instanceActions": [{"request_id": "req-1"}]}))]
        words = {"event": "conductor_live_migrate_instance", "result": "Error", "details": "No valid host was found."}
        action = {"instanceAction": {"message": "Error", "events": [words]}}
        made += [Route(f"{told}/req-1", self._answer(lambda _: action))]
        return made

    def _answer(self, answer: Any) -> Any:
        def handle(request: Request) -> Response:
            with self._turn:
                self.calls[request.url.path] += 1
                self.in_flight += 1
                self.most_in_flight = max(self.most_in_flight, self.in_flight)
                failing = self.fail.get(request.url.path)
                status = failing.pop(0) if failing else 200
            try:
                time.sleep(self.latency_s)
                token = request.headers.get("x-auth-token", "")
                if token and token not in self.tokens:
                    return JSONResponse({"error": {"message": "expired"}}, 401)
                if token in self.stumbled_over and request.url.path.startswith("/compute/v2.1/servers"):
                    return JSONResponse({"computeFault": {"message": "Unexpected API Error.", "code": 500}}, 500)
                if status != 200:
                    return JSONResponse({"computeFault": {"message": "try later", "code": status}}, status)
                body = answer(request)
                return Response(status_code=404) if body is None else JSONResponse(body)
            finally:
                with self._turn:
                    self.in_flight -= 1

        return handle

    def _migrations(self, request: Request) -> dict[str, Any]:
        """Of one server, or in pages what changed since a moment, newest first; they follow one another by uuid."""
        query = request.query_params
        mine = [m for m in self.migrations if m["instance_uuid"] == query.get("instance_uuid", m["instance_uuid"])]
        after = datetime.fromisoformat(query.get("changes-since", "1970-01-01T00:00:00Z"))
        mine = [m for m in mine if datetime.fromisoformat(m["updated_at"]) >= after]
        found: dict[str, Any] = self._page("migrations", lambda: mine[::-1], by="uuid")(request)
        return found

    def _page(self, key: str, items: Any, by: str = "id") -> Any:
        def answer(request: Request) -> dict[str, Any]:
            every, marker = items(), request.query_params.get("marker")
            start = 0 if marker is None else next(n for n, one in enumerate(every) if one[by] == marker) + 1
            limit = min(int(request.query_params.get("limit", PAGE)), PAGE)
            page = every[start : start + limit]
            more = [{"rel": "next", "href": "..."}] if len(page) == limit else []
            return {key: page, f"{key}_links": more}

        return answer

    def _one(self, request: Request) -> dict[str, Any] | None:
        found = next((one for one in self.servers if one["id"] == request.path_params["uuid"]), None)
        return None if found is None else {"server": found}

    def _inventories(self, request: Request) -> dict[str, Any]:
        number = int(request.path_params["uuid"][-12:], 16)
        return {
            "resource_provider_generation": self.generation[number],
            "inventories": {
                "VCPU": {"total": 32, "reserved": 2, "allocation_ratio": 4.0},
                "MEMORY_MB": {"total": 131072, "reserved": 512, "allocation_ratio": 1.0},
                "DISK_GB": {"total": 2000, "reserved": 0, "allocation_ratio": 1.0},
            },
        }

    def _candidates(self, request: Request) -> dict[str, Any]:
        self.asked_of_placement.append(dict(request.query_params))
        required = {name for name in request.query_params.get("required", "").split(",") if name and name[0] != "!"}
        offered = [uuid_of(1, number) for number in self.generation if number not in self.full]
        if not required <= {"HW_CPU_X86_AVX2"}:
            offered = []
        return {
            "allocation_requests": [
                {"allocations": {uuid: {"resources": {"VCPU": 1}}}, "mappings": {"": [uuid]}} for uuid in offered
            ],
            "provider_summaries": {
                uuid: {
                    "traits": ["HW_CPU_X86_AVX2"], "resources": {}, "root_provider_uuid": uuid,
                    "parent_provider_uuid": None,
                }
                for uuid in offered
            },
        }  # fmt: skip

    async def _act(self, request: Request) -> Response:
        body = await request.json()
        with self._turn:
            self.calls[request.url.path] += 1
            self.actions.append((request.path_params["uuid"], body))
            failing = self.fail.get(request.url.path)
        if failing:
            said = "Instance is busy, it is being moved already"
            return JSONResponse({"conflictingRequest": {"message": said, "code": 409}}, failing.pop(0))
        with self._turn:
            uuid, slow = request.path_params["uuid"], self.confirming
            if slow is not None and "confirmResize" in body and uuid not in slow:
                slow.add(uuid)  # accepted; it will have happened when it is asked for again
                return Response(status_code=202)
            self._happen(uuid, body)
        if slow is not None and "confirmResize" in body:
            return JSONResponse({"badRequest": {"message": "Instance has not been resized.", "code": 400}}, 400)
        return Response(status_code=202)

    def _happen(self, uuid: str, body: dict[str, Any]) -> None:
        """What a server's action does to it, at once."""
        server = next((one for one in self.servers if one["id"] == uuid), None)
        kind = next(iter(body))
        if server is None or kind not in ("migrate", "os-migrateLive", "confirmResize"):
            return
        if kind == "confirmResize":
            server["status"] = "ACTIVE"
            return
        source, to = server["OS-EXT-SRV-ATTR:host"], body[kind]["host"]
        cold = kind == "migrate"
        if self.no_valid_host:  # Nova does not write down where it was to go
            to = None
        self.migrations.append(
            {
                "id": len(self.migrations) + 1, "uuid": uuid_of(8, len(self.migrations)),
                "instance_uuid": uuid, "source_compute": source, "dest_compute": to,
                "migration_type": "migration" if cold else "live-migration",
                "status": "error" if to is None else "finished" if cold else "completed",
                "created_at": datetime.now(UTC).isoformat(), "updated_at": datetime.now(UTC).isoformat(),
            }
        )  # fmt: skip
        if to is None:
            return
        server["status"] = "VERIFY_RESIZE" if cold else "ACTIVE"
        server["OS-EXT-SRV-ATTR:host"] = to

    def _token(self, _: Request) -> Response:
        with self._turn:
            self.calls["/identity/v3/auth/tokens"] += 1
            token = f"token-{len(self.tokens)}"
            self.tokens = [token]
        catalogue = [
            {
                "type": kind,
                "name": kind,
                "id": kind,
                "endpoints": [{"id": kind, "interface": "public", "region": "r", "region_id": "r", "url": url}],
            }
            for kind, url in (
                ("identity", f"{self.url}/identity/v3"),
                ("compute", f"{self.url}/compute/v2.1"),
                ("placement", f"{self.url}/placement"),
                ("block-storage", f"{self.url}/volume/v3"),
                ("baremetal", f"{self.url}/baremetal/v1"),
                *self.also.items(),
            )
        ]
        body = {
            "token": {
                "methods": ["password"],
                "expires_at": "2099-01-01T00:00:00.000000Z",
                "issued_at": "2026-01-01T00:00:00.000000Z",
                "user": {"id": "u", "name": "trimtab", "domain": {"id": "default", "name": "Default"}},
                "project": {"id": "p", "name": "service", "domain": {"id": "default", "name": "Default"}},
                "roles": [{"id": "admin", "name": "admin"}],
                "catalog": catalogue,
            }
        }  # fmt: skip
        return JSONResponse(body, 201, {"X-Subject-Token": token})

    def _self(self, path: str) -> list[dict[str, str]]:
        return [{"rel": "self", "href": f"{self.url}/{path}"}]

    def _version(self, name: str, newest: str, oldest: str, path: str, key: str = "version") -> dict[str, Any]:
        return {"id": name, "status": "CURRENT", key: newest, "min_version": oldest, "links": self._self(path)}

    def _volume(self) -> dict[str, Any]:
        return {
            "id": uuid_of(4, 0), "name": "data", "size": 10, "status": "in-use", "volume_type": "ssd",
            "os-vol-host-attr:host": "store@ssd#a", "migration_status": None, "bootable": "false",
            "attachments": [{"server_id": uuid_of(2, 0)}], "created_at": "2026-11-01T00:00:00.000000",
        }  # fmt: skip


class Served(Protocol):
    """What answers over HTTP, and is told where."""

    url: str

    def routes(self) -> list[Route]:
        """All paths that are answered."""
        ...


AnyServed = TypeVar("AnyServed", bound=Served)


@contextlib.contextmanager
def on_loopback(cloud: AnyServed) -> Iterator[AnyServed]:
    """Serve it on a free port of this machine."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(128)
        cloud.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        app = Starlette(routes=cloud.routes())
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        try:
            yield cloud
        finally:
            server.should_exit = True
            thread.join(10)
