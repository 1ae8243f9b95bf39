"""What stands around the application: sizes, rates, request ids, proxies and CORS."""

import asyncio
import json
import logging
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.platform.settings import Settings
from trimtab.serve.app import create_app
from trimtab.serve.limits import MOST_KEYS, Buckets, SizeLimit

Client = Callable[..., Any]


@pytest.fixture
def served(idle: Any, tmp_path: Path) -> Client:
    """The whole application with settings of the test's own."""

    @asynccontextmanager
    async def client(*, address: str = "127.0.0.1", **more: Any) -> AsyncIterator[httpx.AsyncClient]:
        settings = Settings(data_dir=tmp_path, **more)
        app = create_app(replace(idle.app.state.backend, settings=settings))
        transport = httpx.ASGITransport(app, client=(address, 4711))
        async with httpx.AsyncClient(transport=transport, base_url="http://trimtab:9322") as http:
            yield http

    return client


# -- sizes ----------------------------------------------------------------------------------------------------------


async def test_a_body_that_is_too_large_is_refused_with_its_limit(served: Client) -> None:
    async with served(max_body_bytes=1000) as http:
        body = {"goal": "dummy", "name": "x" * 2000, "audit_type": "ONESHOT"}
        answer = await http.post("/v1/audits", json=body)
        assert answer.status_code == 413
        assert "1000 bytes" in json.loads(answer.json()["error_message"])["faultstring"]
        assert answer.headers["x-openstack-request-id"].startswith("req-")
        body["name"] = "x" * 20
        assert (await http.post("/v1/audits", json=body)).status_code == 201


async def test_a_chunked_body_is_read_no_further_than_the_limit(served: Client) -> None:
    sent = []

    async def endless() -> AsyncIterator[bytes]:
        while True:
            sent.append(1)
            yield b"x" * 100

    async def fitting() -> AsyncIterator[bytes]:
        whole = json.dumps({"goal": "dummy", "audit_type": "ONESHOT"}).encode()
        for byte in whole:
            yield bytes([byte])

    async with served(max_body_bytes=1000) as http:
        headers = {"Content-Type": "application/json"}
        assert (await http.post("/v1/audits", content=endless(), headers=headers)).status_code == 413
        assert len(sent) == 11
        assert (await http.post("/v1/audits", content=fitting(), headers=headers)).status_code == 201


async def test_an_endless_body_over_a_socket_is_answered_while_it_is_still_sent(listening: str) -> None:
    address = httpx.URL(listening)
    reader, writer = await asyncio.open_connection(address.host, address.port)
    writer.write(b"POST /v1/audits HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(40):  # 2.5 MiB, and no end
        writer.write(b"10000\r\n" + b"x" * 65536 + b"\r\n")
    async with asyncio.timeout(30.0):
        assert (await reader.readline()).split()[1] == b"413"
    writer.close()


@given(st.lists(st.binary(max_size=40), max_size=8), st.integers(1, 100))
async def test_bodies_that_fit_arrive_whole(parts: list[bytes], most: int) -> None:
    arrived: list[bytes] = []
    statuses: list[int] = []

    async def app(_: Any, receive: Any, send: Any) -> None:
        while True:
            message = await receive()
            arrived.append(message["body"])
            if not message["more_body"]:
                break
        await send({"type": "http.response.start", "status": 200, "headers": []})

    waiting = iter([{"type": "http.request", "body": part, "more_body": True} for part in parts])

    async def receive() -> Any:
        return next(waiting, {"type": "http.request", "body": b"", "more_body": False})

    async def send(message: Any) -> None:
        statuses.append(message.get("status", 0))

    await SizeLimit(app, most)({"type": "http", "method": "POST", "headers": []}, receive, send)
    whole = b"".join(parts)
    assert statuses[0] == (200 if len(whole) <= most else 413)
    assert b"".join(arrived) == (whole if len(whole) <= most else b"")


# -- rates ----------------------------------------------------------------------------------------------------------


async def test_who_asks_too_often_is_told_when_to_ask_again(served: Client) -> None:
    async with served(requests_per_second=0.5, requests_burst=2) as http:
        answers = [await http.get("/v1") for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        assert answers[2].headers["Retry-After"] == "2"
        assert "ask again" in json.loads(answers[2].json()["error_message"])["faultstring"]
    async with served() as http:
        assert {(await http.get("/v1")).status_code for _ in range(150)} == {200}


@given(st.lists(st.tuples(st.sampled_from("ab"), st.floats(0, 3)), max_size=60), st.integers(1, 5), st.floats(0.1, 5))
def test_no_key_gets_more_than_its_burst_and_its_rate(steps: list[Any], burst: int, rate: float) -> None:
    now = [0.0]
    buckets = Buckets(rate, burst, lambda: now[0])
    taken = {"a": 0, "b": 0}
    for key, later in steps:
        now[0] += later
        wait = buckets.take(key)
        assert 0.0 <= wait <= 1.0 / rate + 1e-6
        if wait:
            before = now[0]
            now[0] += wait + 1e-6  # what was promised is kept
            assert buckets.take(key) == 0.0
            now[0] = max(before, now[0])
        taken[key] += 1
        assert taken[key] <= burst + now[0] * rate + 1e-3


def test_buckets_of_the_many_are_forgotten() -> None:
    buckets = Buckets(1.0, 1, lambda: 0.0)
    assert buckets.take("first") == 0.0
    assert buckets.take("first") == 1.0
    for number in range(MOST_KEYS):
        buckets.take(str(number))
    assert buckets.take("first") == 0.0


# -- request ids and proxies ----------------------------------------------------------------------------------------


async def test_a_global_request_id_is_logged_beside_our_own(served: Client, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "trimtab.serve.envelope")
    wider = f"req-{uuid.uuid4()}"
    async with served() as http:
        answer = await http.get("/v1/goals", headers={"X-OpenStack-Request-ID": wider})
        await http.get("/v1/goals", headers={"X-OpenStack-Request-ID": "req-<script>"})
    assert answer.headers.get_list("x-openstack-request-id") == [answer.headers["x-openstack-request-id"]]
    assert answer.headers["x-openstack-request-id"] != wider
    assert f"{answer.headers['x-openstack-request-id']} (global {wider})" in caplog.text
    assert "script" not in caplog.text


TOLD = {
    "X-Forwarded-For": "203.0.113.9, 10.0.0.7",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "cloud.example",
    "X-Forwarded-Port": "8443",
    "X-Forwarded-Prefix": "/infra-optim",
}


async def test_a_trusted_proxy_says_where_a_request_came_from(served: Client) -> None:
    async with served(address="10.0.0.1", trusted_proxies="10.0.0.0/24") as http:
        goal = (await http.get("/v1/goals/dummy", headers=TOLD)).json()
        assert goal["links"][0]["href"].startswith("https://cloud.example:8443/v1/goals/")
        root = (await http.get("/", headers=TOLD)).json()
        assert root["versions"][0]["links"][0]["href"] == "https://cloud.example:8443/infra-optim/v1/"
        usual = TOLD | {"X-Forwarded-Port": "443"}
        assert "https://cloud.example/v1" in (await http.get("/v1/goals/dummy", headers=usual)).text
        odd = TOLD | {"X-Forwarded-Host": "evil.example/path?", "X-Forwarded-Proto": "javascript"}
        assert "http://trimtab:9322/v1" in (await http.get("/v1/goals/dummy", headers=odd)).text


async def test_nobody_else_is_believed(served: Client) -> None:
    async with served(address="192.0.2.1", trusted_proxies=["10.0.0.0/24", "::1"]) as http:
        assert "cloud.example" not in (await http.get("/v1/goals/dummy", headers=TOLD)).text
    async with served(address="10.0.0.1") as http:
        assert "cloud.example" not in (await http.get("/v1/goals/dummy", headers=TOLD)).text


async def test_limits_count_the_caller_behind_our_proxies_not_what_it_invents(served: Client) -> None:
    limits = {"requests_per_second": 0.01, "requests_burst": 1, "trusted_proxies": ["10.0.0.0/24"]}
    async with served(address="10.0.0.1", **limits) as http:

        async def status(chain: str) -> int:
            return (await http.get("/v1", headers={"X-Forwarded-For": chain})).status_code

        assert await status("203.0.113.9, 10.0.0.7") == 200
        assert await status("198.51.100.1, 203.0.113.9, 10.0.0.7") == 429
        assert await status("203.0.113.10") == 200
        assert await status("not an address") == 200  # then the proxy itself is the caller
        assert await status("") == 429


# -- CORS -----------------------------------------------------------------------------------------------------------


async def test_pages_of_allowed_origins_may_call(served: Client) -> None:
    asks = {"Origin": "https://dashboard.example", "Access-Control-Request-Method": "PATCH"}
    async with served(cors={"allowed_origin": "https://dashboard.example"}) as http:
        answer = await http.options("/v1/audits", headers=asks | {"Access-Control-Request-Headers": "X-Auth-Token"})
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == "https://dashboard.example"
        assert "PATCH" in answer.headers["access-control-allow-methods"]
        assert "X-Auth-Token" in answer.headers["access-control-allow-headers"]
        other = await http.options("/v1/audits", headers=asks | {"Origin": "https://evil.example"})
        assert "access-control-allow-origin" not in other.headers
        plain = await http.get("/v1/goals", headers={"Origin": "https://dashboard.example"})
        assert plain.headers["access-control-allow-origin"] == "https://dashboard.example"
        assert "x-openstack-request-id" in plain.headers["access-control-expose-headers"].lower()
    async with served() as http:
        answer = await http.options("/v1/audits", headers=asks)
        assert "access-control-allow-origin" not in answer.headers


# -- pages of others, where nobody is asked who it is ---------------------------------------------------------------


async def test_pages_of_others_cannot_use_this_machines_browser(served: Client) -> None:
    body = {"goal": "dummy", "audit_type": "ONESHOT"}
    async with served() as http:
        for origin in ("https://evil.example", "null", "http://trimtab:1"):
            answer = await http.post("/v1/audits", json=body, headers={"Origin": origin})
            assert answer.status_code == 403, origin
            assert "cors.allowed_origin" in answer.json()["error_message"]
        assert (await http.post("/v1/audits", json=body, headers={"Origin": "http://trimtab:9322"})).status_code == 201
        assert (await http.get("/v1/audits", headers={"Origin": "https://evil.example"})).status_code == 200
        # A page of evil.example, whose name was made to lead here after it was loaded.
        for host in (
            "evil.example",
            "evil.example:9322",
            "localhost.evil.example",
            "1.2.3.4.evil.example",
            "",
            "[",
            "a.",
        ):
            answer = await http.get("/v1/audits", headers={"Host": host})
            assert answer.status_code == 403, host
        for host in ("localhost:9322", "127.0.0.1", "[::1]:9322", "192.0.2.1", "controller", "a.localhost"):
            assert (await http.get("/v1/audits", headers={"Host": host})).status_code == 200, host
    async with served(cors={"allowed_origin": "https://ours.example"}) as http:
        ours = {"Origin": "https://ours.example"}
        assert (await http.post("/v1/audits", json=body, headers=ours)).status_code == 201
    async with served(host="192.0.2.1", insecure_no_auth=True) as http:
        assert (await http.get("/v1/audits", headers={"Host": "trimtab.example"})).status_code == 200
    async with served(address="10.0.0.1", trusted_proxies="10.0.0.1") as http:
        assert (await http.get("/v1/audits", headers={"Host": "trimtab.example"})).status_code == 200
