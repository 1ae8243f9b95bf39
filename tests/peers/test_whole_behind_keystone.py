"""`trimtab up` as an operator runs it in a cloud: behind Keystone, with a certificate, limits, a proxy and a bus."""

from __future__ import annotations

import json
import os
import secrets
import ssl
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import psutil
import pytest
from tests.peers import server
from tests.peers.identity import Keystone

pytestmark = [pytest.mark.peers, pytest.mark.timeout(600)]

BUS_PASSWORD = f"pw-bus-{secrets.token_hex(8)}"
BURST = 60


class Whole(NamedTuple):
    """A running Trimtab as everybody on its machine sees it."""

    url: str
    folder: Path
    certificate: Path
    tokens: dict[str, str]
    passwords: list[str]

    def client(self, who: str | None = None) -> httpx.Client:
        headers = {} if who is None else {"X-Auth-Token": self.tokens[who]}
        verify = ssl.create_default_context(cafile=str(self.certificate))
        return httpx.Client(base_url=self.url, verify=verify, headers=headers, timeout=60.0, trust_env=False)

    def family(self) -> list[psutil.Process]:
        """The supervisor and all it started."""
        one = psutil.Process(json.loads((self.folder / "data" / "trimtab.pid").read_text())["pid"])
        return [one, *one.children(recursive=True)]


@pytest.fixture(scope="module")
def whole(keystone: Keystone, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    folder = tmp_path_factory.mktemp("whole")
    certificate, key = folder / "cert.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    keystone.user("trimtab", "service", ["service"])
    keystone.user("reader", "ours", ["reader"])
    file = folder / "trimtab.toml"
    options: dict[str, Any] = {
        "auth": "keystone",
        "requests_per_second": 0.1,
        "requests_burst": BURST,
        "max_body_bytes": 10_000,
        "trusted_proxies": ["127.0.0.1"],
        "notifications_url": f"rabbit://trimtab:{BUS_PASSWORD}@127.0.0.1:9//",
        "keystone_authtoken": {"auth_url": keystone.url, "username": "trimtab"},
        "cors": {"allowed_origin": ["https://dashboard.example"]},
        "ssl": {"cert_file": "cert.pem", "key_file": "key.pem"},
    }
    lines = [f"{name} = {json.dumps(value)}" for name, value in options.items() if not isinstance(value, dict)]
    for section, inside in ((name, value) for name, value in options.items() if isinstance(value, dict)):
        lines += [f"[{section}]"] + [f"{name} = {json.dumps(value)}" for name, value in inside.items()]
    file.write_text("\n".join(lines))
    environment = {
        "TRIMTAB_CONFIG": str(file),
        "TRIMTAB_KEYSTONE_AUTHTOKEN__PASSWORD": keystone.passwords["trimtab"],
        "TRIMTAB_RAY__DASHBOARD": "true",
        "TRIMTAB_RAY__DASHBOARD_PORT": str(server.free_port()),
    }
    tokens = {"admin": keystone.token("admin", "admin"), "reader": keystone.token("reader", "ours")}
    with server.running(folder, environment) as url:
        yield Whole(url, folder, certificate, tokens, [*keystone.passwords.values(), BUS_PASSWORD])


def test_without_a_token_there_is_the_front_page_and_that_it_is_up_and_nothing_else(whole: Whole) -> None:
    assert whole.url.startswith("https://")
    with whole.client("admin") as admin:
        paths = admin.get("/openapi.json").json()["paths"]
    asked = 0
    with whole.client() as nobody:
        for path, methods in paths.items():
            for method in methods:
                answer = nobody.request(method, path.format_map(dict.fromkeys(_names(path), "x")))
                assert answer.status_code == (200 if path == "/" else 401), (method, path)
                asked += 1
        for path in ("/openapi.json", "/docs", "/redoc", "/metrics", "/v1", "/-/", "/-/healthz/", "/-/metrics", "/x"):
            assert nobody.get(path).status_code == 401, path
        # Ray Serve answers these two itself: that it is there, and that all paths are Trimtab's.
        assert (nobody.get("/-/healthz").text, nobody.get("/-/routes").json()) == ("success", {"/": "trimtab"})
    assert asked > 40


def _names(path: str) -> list[str]:
    return [part.partition("}")[0] for part in path.split("{")[1:]]


def test_only_the_api_is_where_it_was_told_and_all_else_of_ray_is_on_loopback(whole: Whole) -> None:
    listening = {
        (one.laddr.ip, one.laddr.port, process.name())
        for process in whole.family()
        for one in process.net_connections("inet")
        if one.status == psutil.CONN_LISTEN
    }
    assert len(listening) > 5
    elsewhere = {one for one in listening if not ip_address(one[0].removeprefix("::ffff:")).is_loopback}
    assert elsewhere == set()


def test_sizes_and_rates_are_limited(whole: Whole) -> None:
    with whole.client("admin") as http:
        large = {"goal": "dummy", "audit_type": "ONESHOT", "name": "x" * 20_000}
        answer = http.post("/v1/audits", json=large)
        assert answer.status_code == 413
        assert "10000 bytes" in answer.json()["error_message"]

        def chunks() -> Iterator[bytes]:
            for _ in range(20):
                yield b" " * 1000

        assert http.post("/v1/audits", content=chunks()).status_code == 413
        assert http.post("/v1/audits", json={**large, "name": "small"}).status_code == 201
    with whole.client("reader") as http:
        answers = [http.get("/v1") for _ in range(BURST + 20)]
        assert answers[0].status_code == 200
        assert answers[-1].status_code == 429
        assert 1 <= int(answers[-1].headers["Retry-After"]) <= 10
    with whole.client("admin") as http:  # somebody else's limit is not ours
        assert http.get("/v1").status_code == 200


def test_requests_have_ids_browsers_their_answers_and_proxies_their_say(whole: Whole) -> None:
    with whole.client("admin") as http, whole.client() as nobody:
        wider = f"req-{uuid.uuid4()}"
        told = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "cloud.example", "X-Forwarded-Prefix": "/infra-optim"}
        answer = http.get("/", headers={"X-OpenStack-Request-ID": wider, **told})
        (ident,) = answer.headers.get_list("x-openstack-request-id")
        assert ident.startswith("req-")
        assert ident != wider
        assert answer.json()["versions"][0]["links"][0]["href"] == "https://cloud.example/infra-optim/v1/"
        assert nobody.get("/v1").headers["x-openstack-request-id"].startswith("req-")
        origin = {"Origin": "https://dashboard.example"}
        asks = {**origin, "Access-Control-Request-Method": "PATCH", "Access-Control-Request-Headers": "x-auth-token"}
        preflight = nobody.options("/v1/audits", headers=asks)
        assert preflight.status_code == 200
        assert preflight.headers["access-control-allow-origin"] == "https://dashboard.example"
        assert nobody.get("/v1", headers=origin).headers["access-control-allow-origin"] == "https://dashboard.example"
        evil = nobody.options("/v1/audits", headers={**asks, "Origin": "https://evil.example"})
        assert "access-control-allow-origin" not in evil.headers


def test_the_command_line_shows_a_token_or_signs_in(whole: Whole, keystone: Keystone) -> None:
    def trimtab(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("TRIMTAB_", "OS_"))}
        return subprocess.run(
            [sys.executable, "-m", "trimtab.serve.main", *arguments],
            env={**clean, "TRIMTAB_URL": whole.url, "OS_CACERT": str(whole.certificate), "COLUMNS": "200", **environ},
            capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip

    told = trimtab("audit", "list", "--json", TRIMTAB_TOKEN=whole.tokens["admin"])
    assert told.returncode == 0, told.stderr
    assert [audit["name"] for audit in json.loads(told.stdout)] == ["small"]
    project = {"OS_PROJECT_NAME": "admin", "OS_USER_DOMAIN_ID": "default", "OS_PROJECT_DOMAIN_ID": "default"}
    as_admin = {"OS_AUTH_URL": keystone.url, "OS_USERNAME": "admin", "OS_PASSWORD": keystone.passwords["admin"]}
    told = trimtab("audit", "list", "--json", TRIMTAB_TOKEN="one that ended", **as_admin, **project)
    assert told.returncode == 0, told.stderr
    told = trimtab("audit", "list")
    assert told.returncode == 1
    assert "export TRIMTAB_TOKEN=" in told.stderr
    assert "Traceback" not in told.stderr


def test_no_log_of_any_process_has_a_token_or_a_password(whole: Whole) -> None:
    with whole.client() as http:
        for token in ("gAAAAABm" + "q" * 60, whole.tokens["admin"] + "x"):
            assert http.get(f"/v1/goals/{token}", headers={"X-Auth-Token": token}).status_code == 401
    with whole.client("admin") as http:
        http.get(f"/v1/goals/{whole.tokens['admin']}")
    commands = [" ".join(process.cmdline()) for process in whole.family()]
    (logs,) = {part.removeprefix("--log_dir=") for one in commands for part in one.split() if "--log_dir=" in part}
    texts: dict[str, str] = {}
    for _ in range(600):
        files = [whole.folder / "trimtab.log", *whole.folder.glob("data/**/*.log"), *Path(logs).rglob("*")]
        texts = {str(file): file.read_text(errors="replace") for file in files if file.is_file()}
        if any("notifications wait" in text for text in texts.values()):
            break  # the bus that is not there is spoken of
        time.sleep(0.1)
    else:
        pytest.fail("nobody speaks of the bus that is not there: these are not all logs")
    wanted = [*whole.tokens.values(), *whole.passwords, "q" * 60]
    found = [(file, secret[:6]) for file, text in texts.items() for secret in wanted if secret in text]
    found += [("a command line", secret[:6]) for one in commands for secret in wanted if secret in one]
    assert found == []
