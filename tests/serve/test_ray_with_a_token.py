"""A Ray of Trimtab's own that asks for a token, as the service's unit has it: who has it gets in, and nobody else."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from tests.peers.nodes import Program, until, without_ours
from tests.peers.server import AUDIT_ENDED, Trimtab, free_port

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]

UNIT = Path(__file__).parents[2] / "docs" / "deploy" / "trimtab.service"
LOOPBACK = ("127.", "::1", "::ffff:127.")


def of_the_unit() -> dict[str, str]:
    """What the unit says of Ray's token."""
    lines = [line for line in UNIT.read_text().splitlines() if line.startswith("Environment=")]
    pairs = [word.partition("=") for line in lines for word in line.partition("=")[2].split()]
    return {name: value for name, _, value in pairs if name.startswith("RAY_AUTH_")}


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """An empty home folder; its name is short, because paths of Ray's sockets must be."""
    folder = Path(tempfile.mkdtemp(prefix="tt", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def program(home: Path) -> Iterator[Program]:
    assert of_the_unit() == {"RAY_AUTH_MODE": "token"}
    environment = {**without_ours(os.environ), **of_the_unit(), "HOME": str(home), "RAY_TMPDIR": str(home)}
    toml = f"[ray]\nnum_cpus = 1\ndashboard_port = {free_port()}\n[cloud]\nhosts = 20\ninstances = 100\n"
    made = Program(home, environment, toml)
    yield made
    made.end()


@pytest.fixture(scope="module")
def api(program: Program) -> Trimtab:
    return program.up()


def test_who_has_no_token_gets_nothing_of_ray(home: Path, program: Program, api: Trimtab) -> None:
    file = home / ".ray" / "auth_token"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    dashboard = program.addresses()["dashboard"]

    def status(path: str, token: str | None) -> int:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        return httpx.get(dashboard + path, headers=headers, timeout=30.0, trust_env=False).status_code

    for path in ("/api/jobs/", "/api/v0/actors", "/api/version"):
        assert [status(path, token) for token in (None, "0" * 64, file.read_text())] == [401, 403, 200]
    refused = program.run("db", "version", RAY_AUTH_MODE="disabled", RAY_NUM_REDIS_GET_RETRIES="2")
    assert refused.returncode == 1
    assert "RAY_AUTH_MODE=token" in refused.stderr
    assert api.exists("/v1/audits"), "the API has tokens of its own"


def test_all_works_with_the_token_and_commands_find_it(program: Program, api: Trimtab, tmp_path: Path) -> None:
    audit = api.post("/v1/audits", {"audit_type": "ONESHOT", "goal": "server_consolidation"})
    ended = api.until(f"/v1/audits/{audit['uuid']}", lambda body: body["state"] in AUDIT_ENDED, 180.0)
    assert ended["state"] == "SUCCEEDED", ended
    bare = Program(tmp_path, without_ours(os.environ), "")
    bare.config.write_text(program.config.read_text())
    assert "schema version" in bare.run("db", "version").stdout, "neither variables nor the same home"
    assert bare.run("db", "backup", str(tmp_path / "copy.duckdb")).returncode == 0
    assert (tmp_path / "copy.duckdb").exists()


def test_only_loopback_is_listened_at_and_down_ends_it_all(program: Program, api: Trimtab) -> None:
    supervisor = program.supervisor()
    family = [supervisor, *supervisor.children(recursive=True)]
    listening = {
        (one.laddr.ip, one.laddr.port)
        for process in family
        for one in process.net_connections("tcp")
        if one.status == psutil.CONN_LISTEN
    }
    assert program.port in {port for _, port in listening}
    assert len(listening) > 5
    assert not [(ip, port) for ip, port in listening if not ip.startswith(LOOPBACK)]
    done = program.run("down")
    assert done.returncode == 0
    until(lambda: not [one for one in family if one.is_running() and one.status() != psutil.STATUS_ZOMBIE])
    assert "schema version" in program.run("db", "version").stdout, "from the file itself"
