"""One `trimtab up --foreground` as a process: simulated cloud, own data folder, free port, ended by its id."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil

START_S, STOP_S = 300.0, 60.0
NEWEST = "1.7"
SMALL_CLOUD = {"HOSTS": "20", "INSTANCES": "100", "SPEED": "20"}
AUDIT_ENDED = {"SUCCEEDED", "FAILED", "CANCELLED"}
PLAN_ENDED = {"SUCCEEDED", "FAILED", "CANCELLED"}


def free_port() -> int:
    """A port that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class NotUpError(Exception):
    """The server did not start; the message has the end of its log."""


class Trimtab:
    """The running server as a test sees it: its address and plain HTTP, beside the client that is tested."""

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        self.url = url
        self.http = httpx.Client(base_url=url, headers=headers, timeout=60.0, trust_env=False)

    def ask(self, method: str, path: str, body: Any = None, version: str = NEWEST, **query: Any) -> httpx.Response:
        """One request at a microversion."""
        headers = {"OpenStack-API-Version": f"infra-optim {version}"}
        return self.http.request(method, path, params=query, headers=headers, json=body)

    def get(self, path: str, version: str = NEWEST, **query: Any) -> Any:
        """The body of a GET that must succeed."""
        answer = self.ask("GET", path, version=version, **query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def post(self, path: str, body: Any, version: str = NEWEST) -> dict[str, Any]:
        """What a POST made."""
        answer = self.ask("POST", path, body, version)
        assert answer.status_code < 300, answer.text
        made: dict[str, Any] = answer.json()
        return made

    def exists(self, path: str) -> bool:
        """Whether a resource can be read."""
        return self.ask("GET", path).status_code == 200

    def until(self, path: str, done: Callable[[dict[str, Any]], bool], within_s: float = 90.0) -> dict[str, Any]:
        """Read a resource until it is as wanted."""
        deadline = time.monotonic() + within_s
        while True:
            body: dict[str, Any] = self.get(path)
            if done(body):
                return body
            assert time.monotonic() < deadline, f"{path} did not come where it should: {body}"
            time.sleep(0.05)

    def audited(self, **what: Any) -> dict[str, Any]:
        """An audit, `dummy` if nothing else is asked for, that has succeeded."""
        audit = self.post("/v1/audits", {"audit_type": "ONESHOT", "goal": "dummy", **what})
        ended = self.until(f"/v1/audits/{audit['uuid']}", lambda body: body["state"] in AUDIT_ENDED)
        assert ended["state"] == "SUCCEEDED", ended
        return ended

    def planned(self, **what: Any) -> dict[str, Any]:
        """The recommended plan of a new audit."""
        audit = self.audited(**what)
        (plan,) = self.get("/v1/action_plans/detail", audit_uuid=audit["uuid"])["action_plans"]
        assert plan["state"] == "RECOMMENDED", plan
        return dict(plan)

    def actions(self, plan_uuid: str) -> list[dict[str, Any]]:
        """A plan's actions in the order of their making."""
        return list(self.get("/v1/actions/detail", action_plan_uuid=plan_uuid)["actions"])


@contextmanager
def running(folder: Path, options: Mapping[str, str]) -> Iterator[str]:
    """Start `trimtab up` with TRIMTAB_* options on the small cloud; its address, once it answers."""
    port = free_port()
    cloud = {f"TRIMTAB_CLOUD__{name}": value for name, value in SMALL_CLOUD.items()}
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("TRIMTAB_", "OS_"))}
    own = {"TRIMTAB_DATA_DIR": str(folder / "data"), "TRIMTAB_PORT": str(port), "TRIMTAB_RAY__DASHBOARD": "false"}
    own["RAY_worker_niceness"] = "0"  # else whatever runs beside the tests comes before the server
    # Times without an offset are read as the server's local time: tests say UTC.
    environment = {**inherited, **cloud, **own, **options, "TZ": "UTC"}
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "trimtab.log"
    command = [sys.executable, "-m", "trimtab.serve.main", "up", "--foreground"]
    with log.open("ab") as sink:
        process = psutil.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, start_new_session=True
        )
    try:
        ready, deadline = folder / "data" / "ready.json", time.monotonic() + START_S
        while not ready.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise NotUpError(f"trimtab did not come up; its log ends:\n{log.read_text(errors='replace')[-3000:]}")
            time.sleep(0.2)
        yield str(json.loads(ready.read_text())["api"])
    finally:
        if process.is_running():
            family = process.children(recursive=True)
            process.terminate()
            process.wait(STOP_S)
            _, left = psutil.wait_procs(family, timeout=5.0)
            for survivor in left:
                survivor.kill()
