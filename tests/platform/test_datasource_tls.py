"""Datasources over TLS: whom the settings and clouds.yaml trust is trusted, and nobody else."""

from __future__ import annotations

import base64
import json
import ssl
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import openstack
import pytest
from tests.platform.openstack_standin import StandIn, on_loopback
from tests.platform.test_openstack_inventory import driver_to

from trimtab.platform.datasources.known import Known, Size
from trimtab.platform.datasources.ordered import Ordered
from trimtab.platform.errors import DatasourceError, InvalidInput
from trimtab.platform.openstack.rest import Rest
from trimtab.platform.settings import Settings
from trimtab.platform.snapshot import Need
from trimtab.serve.sources import sources_of

KNOWN = Known.of([], {"vm-0": Size(1, 1, 1)})
RAM = Need("instance_ram_usage", "instance")


@dataclass
class Guarded:
    """A Prometheus behind TLS that shows a certificate and wants one; `logins` are those that it saw."""

    port: int
    certificate: Path
    key: Path
    logins: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1",
               "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    logins: list[str] = []

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            logins.append(self.headers.get("Authorization") or self.headers.get("X-Auth-Token") or "")
            series = [{"metric": {"resource": "vm-0"}, "value": [0, "5"]}]
            body = json.dumps({"data": {"result": series}}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(certificate))
    context.load_cert_chain(certificate, key)
    context.verify_mode = ssl.CERT_REQUIRED
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield Guarded(server.server_port, certificate, key, logins)
    server.shutdown()
    server.server_close()


async def values(asked: Ordered) -> list[float]:
    found: list[float] = (await asked.aggregate([RAM], 0.0)).column("value").to_pylist()
    return found


def prometheus(**told: Any) -> Ordered:
    settings = Settings.model_validate({"datasources": ["prometheus"], "prometheus_client": told})
    return sources_of(settings, driver_to(StandIn(0, 0)).rest, lambda: KNOWN)  # no cloud is asked


async def test_prometheus_with_certificates_and_a_password(guarded: Guarded) -> None:
    ours = {"cafile": guarded.certificate, "certfile": guarded.certificate, "keyfile": guarded.key}
    told = {"host": "127.0.0.1", "port": guarded.port, **ours}
    guarded.logins.clear()
    assert await values(prometheus(**told, username="me", password="secret")) == [5.0]
    assert guarded.logins == ["Basic " + base64.b64encode(b"me:secret").decode()]
    for lacking in ("cafile", "certfile"):
        with pytest.raises(DatasourceError, match="does not answer"):
            await values(prometheus(**{name: value for name, value in told.items() if name != lacking}))


async def test_certificate_and_key_may_be_one_file(guarded: Guarded, tmp_path: Path) -> None:
    both = tmp_path / "both.pem"
    both.write_text(guarded.certificate.read_text() + guarded.key.read_text())
    assert await values(prometheus(url=guarded.url, cafile=guarded.certificate, certfile=both)) == [5.0]


def test_files_that_are_no_certificates_are_named(tmp_path: Path) -> None:
    (tmp_path / "text.pem").write_text("no certificate")
    for path in (tmp_path / "absent.pem", tmp_path / "text.pem"):
        with pytest.raises(InvalidInput, match="the certificates for prometheus cannot be used"):
            prometheus(host="metrics", cafile=path)


@pytest.mark.parametrize("trusted", ["file", "all", "usual"])
async def test_who_is_behind_keystone_is_trusted_as_clouds_yaml_says(guarded: Guarded, trusted: str) -> None:
    ways: dict[str, dict[str, Any]] = {"file": {"cacert": str(guarded.certificate)}, "all": {"verify": False}}
    how = ways.get(trusted, {})
    with on_loopback(StandIn(1, 0)) as cloud:
        cloud.also["metric-storage"] = guarded.url
        connection = openstack.connect(
            auth={
                "auth_url": f"{cloud.url}/identity/v3", "username": "trimtab", "password": "secret",
                "project_name": "service", "user_domain_name": "Default", "project_domain_name": "Default",
            },
            region_name="r", cert=str(guarded.certificate), key=str(guarded.key), **how,
        )  # fmt: skip
        asked = sources_of(Settings(datasources=["aetos"]), Rest(connection, deadline_s=2, pause_s=0.05), lambda: KNOWN)
        guarded.logins.clear()
        if trusted == "usual":
            with pytest.raises(DatasourceError, match=r"aetos does not answer: .*certificate"):
                await values(asked)
        else:
            assert await values(asked) == [5.0]
            assert guarded.logins == cloud.tokens
