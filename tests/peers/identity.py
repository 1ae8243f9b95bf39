"""A real Keystone on this machine, and who is in it: users, roles and tokens as an operator would make them."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from tests.peers.workers import Worker

DOMAIN = {"id": "default"}


class Keystone:
    """Where it is, and its API as the administrator uses it."""

    def __init__(self, worker: Worker, password: str) -> None:
        where = worker.ask(do="where")
        self.url: str = where["keystone"]
        self.guarded: str = where["guarded"]  # a service behind keystonemiddleware
        self.guarded_in_vain: str = where["guarded_in_vain"]  # one whose keystonemiddleware cannot reach Keystone
        self.passwords = {"admin": password}
        self._worker = worker
        self._http = httpx.Client(base_url=f"{self.url}/v3", timeout=60.0, trust_env=False)
        self._http.headers["X-Auth-Token"] = self.token("admin", "admin")
        self._ids: dict[str, str] = {}

    def _id(self, kind: str, name: str, **body: Any) -> str:
        """Of what has this name; it is made where there is none."""
        if (key := f"{kind}/{name}") not in self._ids:
            (found,) = self._http.get(f"/{kind}s", params={"name": name}).json()[f"{kind}s"] or [None]
            if found is None:
                answer = self._http.post(f"/{kind}s", json={kind: {"name": name, **body}})
                assert answer.status_code == 201, answer.text
                found = answer.json()[kind]
            self._ids[key] = found["id"]
        return self._ids[key]

    def user(self, name: str, project: str, roles: Iterable[str]) -> str:
        """A user with roles in a project; its id. The password is in `passwords`."""
        self.passwords.setdefault(name, f"pw-{name}-{secrets.token_hex(8)}")
        ident = self._id("user", name, password=self.passwords[name], domain_id="default")
        for role in roles:
            path = f"/projects/{self.project(project)}/users/{ident}/roles/{self._id('role', role)}"
            answer = self._http.put(path)
            assert answer.status_code == 204, answer.text
        return ident

    def project(self, name: str) -> str:
        """The id of a project."""
        return self._id("project", name, domain_id="default")

    def endpoint(self, service: str, kind: str, url: str) -> None:
        """Put a service into the catalogue."""
        ident = self._id("service", service, type=kind)
        answer = self._http.post(
            "/endpoints", json={"endpoint": {"service_id": ident, "interface": "public", "url": url}}
        )
        assert answer.status_code == 201, answer.text

    def token(self, user: str, project: str) -> str:
        """A token for a project, for the user's password."""
        identity = {"user": {"name": user, "domain": DOMAIN, "password": self.passwords[user]}}
        scope = {"project": {"name": project, "domain": DOMAIN}}
        body = {"auth": {"identity": {"methods": ["password"], "password": identity}, "scope": scope}}
        answer = httpx.post(f"{self.url}/v3/auth/tokens", json=body, timeout=60.0, trust_env=False)
        assert answer.status_code == 201, answer.text
        return str(answer.headers["X-Subject-Token"])

    def token_that_lasts(self, user_id: str, project_id: str, seconds: float) -> str:
        """A token that ends so many seconds from now; in the past for a negative number."""
        return str(self._worker.ask(do="issue", user_id=user_id, project_id=project_id, lasts_s=seconds)["token"])

    def revoke(self, token: str) -> None:
        """End a token before its time."""
        answer = self._http.delete("/auth/tokens", headers={"X-Subject-Token": token})
        assert answer.status_code == 204, answer.text


@contextmanager
def keystone_in(folder: Path) -> Iterator[Keystone]:
    """Start one with its data in a folder."""
    password = f"pw-admin-{secrets.token_hex(8)}"
    folder.mkdir(parents=True, exist_ok=True)
    worker = Worker("keystone", "keystone_worker.py", str(folder), password)
    try:
        yield Keystone(worker, password)
    finally:
        worker.close()


class Relay:
    """A way to Keystone that can be cut, or lead nowhere, while Keystone itself goes on."""

    def __init__(self, target: str) -> None:
        self._target = httpx.URL(target)
        self._writers: set[asyncio.StreamWriter] = set()
        self.leads_nowhere = False
        self.carried = 0  # connections

    async def open(self) -> str:
        """Its address."""
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        self._port = self._server.sockets[0].getsockname()[1]
        return f"http://127.0.0.1:{self._port}"

    async def cut(self) -> None:
        """Refuse connections, and end those that there are."""
        self._server.close()
        for writer in self._writers:
            writer.close()
        await asyncio.sleep(0)

    async def mend(self) -> None:
        """As it was, at the same address."""
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", self._port)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.carried += 1
        there, back = await asyncio.open_connection(self._target.host, self._target.port)
        self._writers |= {writer, back}
        await asyncio.gather(self._pass(reader, back), self._pass(there, writer))

    async def _pass(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65536):
                if not self.leads_nowhere:
                    sink.write(data)
                    await sink.drain()
        except ConnectionError:
            return  # cut
        finally:
            sink.close()
