"""Tokens, roles and policies, against a stand-in that speaks Keystone's protocol on a real socket."""

import asyncio
import json
import logging
import os
import re
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.routing import APIRoute
from tests.platform.openstack_standin import StandIn, on_loopback
from tests.serve.conftest import on_a_socket
from typer.testing import CliRunner

from trimtab.platform.errors import Forbidden, InvalidInput
from trimtab.platform.settings import KeystoneSettings, Settings
from trimtab.serve.app import create_app
from trimtab.serve.client import Client
from trimtab.serve.keystone import KeystoneUnreachable, Tokens, validator
from trimtab.serve.main import app as command_line
from trimtab.serve.policy import DEFAULTS, OF_TRIMTAB, Caller, Policies, read_rules, unknown

SERVICE_PASSWORD = "s3rvice-passw0rd"


class Keystone:
    """Users' tokens by their text, and what was asked."""

    def __init__(self) -> None:
        self.tokens: dict[str, dict[str, Any]] = {}
        self.service_tokens: set[str] = set()
        self.asked: list[str] = []
        self.was_asked = threading.Event()
        self.gate = threading.Event()
        self.gate.set()
        self.broken = False
        self.url = ""

    def issue(self, token: str, *roles: str, lasts: timedelta = timedelta(hours=1)) -> str:
        """A token of a project, as Keystone's version 3 describes it."""
        domain = {"id": "default", "name": "Default"}
        self.tokens[token] = {
            "methods": ["password"],
            "user": {"id": f"id-of-{token}", "name": f"user-of-{token}", "domain": domain},
            "project": {"id": "p1", "name": "admin", "domain": domain},
            "roles": [{"id": f"r-{role}", "name": role} for role in roles],
            "issued_at": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
            "expires_at": (datetime.now(UTC) + lasts).isoformat().replace("+00:00", "Z"),
        }
        return token


def _handler(keystone: Keystone) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self, status: int, body: Any, **headers: str) -> None:
            content = json.dumps(body).encode()
            self.send_response(status)
            for name, value in {**headers, "Content-Type": "application/json"}.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def do_GET(self) -> None:
            path = self.path.partition("?")[0].rstrip("/")
            if path in {"", "/v3"}:
                version = {
                    "id": "v3.14",
                    "status": "stable",
                    "links": [{"rel": "self", "href": f"{keystone.url}/v3/"}],
                    "media-types": [],
                }
                if path == "/v3":
                    self.answer(200, {"version": version})
                else:
                    self.answer(300, {"versions": {"values": [version]}})
                return
            keystone.asked.append(self.headers.get("X-Subject-Token", ""))
            keystone.was_asked.set()
            keystone.gate.wait(10.0)
            if keystone.broken:
                self.answer(500, {"error": {"code": 500, "title": "Internal Server Error", "message": "broken"}})
            elif self.headers.get("X-Auth-Token") not in keystone.service_tokens:
                self.answer(401, {"error": {"code": 401, "title": "Unauthorized", "message": "no"}})
            elif (token := keystone.tokens.get(self.headers.get("X-Subject-Token", ""))) is None:
                self.answer(404, {"error": {"code": 404, "title": "Not Found", "message": "no such token"}})
            else:
                self.answer(200, {"token": token})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            user = body["auth"]["identity"]["password"]["user"]
            if user["name"] != "trimtab" or user["password"] != SERVICE_PASSWORD:
                self.answer(401, {"error": {"code": 401, "title": "Unauthorized", "message": "wrong password"}})
                return
            token = f"gAAAAAservice{len(keystone.service_tokens):040d}"
            keystone.service_tokens.add(token)
            ends = (datetime.now(UTC) + timedelta(hours=1)).isoformat().replace("+00:00", "Z")
            catalog = [{"type": "identity", "name": "keystone", "id": "k", "endpoints": []}]
            inner = {"user": {"id": "s"}, "expires_at": ends, "methods": ["password"], "catalog": catalog}
            self.answer(201, {"token": inner}, X_Subject_Token=token)

        def log_message(self, *_: Any) -> None:
            """Tests say what was asked."""

    return Handler


@pytest.fixture
def keystone() -> Iterator[Keystone]:
    made = Keystone()
    with ThreadingHTTPServer(("127.0.0.1", 0), _handler(made)) as server:
        made.url = f"http://127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield made
        made.gate.set()
        server.shutdown()


def settings_for(keystone: Keystone, folder: Path, **more: Any) -> Settings:
    section = {
        "auth_url": keystone.url,
        "username": "trimtab",
        "password": SERVICE_PASSWORD,
        "http_connect_timeout": 5.0,
    }
    section |= more.pop("keystone_authtoken", {})
    return Settings(data_dir=folder, auth="keystone", keystone_authtoken=section, **more)


@pytest.fixture
def guarded(idle: Any, keystone: Keystone, tmp_path: Path) -> Callable[..., Any]:
    """The whole application behind Keystone, with settings of the test's own."""

    @asynccontextmanager
    async def client(**more: Any) -> AsyncIterator[httpx.AsyncClient]:
        app = create_app(replace(idle.app.state.backend, settings=settings_for(keystone, tmp_path, **more)))
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://trimtab:9322") as http:
            yield http

    return client


def with_token(token: str) -> dict[str, str]:
    return {"X-Auth-Token": token}


# -- who comes in ---------------------------------------------------------------------------------------------------


async def test_an_admin_comes_in_and_others_learn_only_the_front_page(guarded: Any, keystone: Keystone) -> None:
    keystone.issue("tok-admin", "admin")
    async with guarded() as http:
        for front in ("/", "/.json", "//"):
            assert (await http.get(front)).json()["name"] == (await http.get("/")).json()["name"]
        for path in (
            "/v1", "/v1/", "/v1/goals", "/goals", "/v1//goals", "/v1/goals.json", "/metrics", "/docs", "/redoc",
            "/openapi.json", "/v1/events", "/v1/cluster", "/nowhere", "/v1/webhooks/x", "/docs/oauth2-redirect",
        ):  # fmt: skip
            answer = await http.get(path)
            assert answer.status_code == 401, path
            assert answer.json() == {
                "error": {
                    "code": 401,
                    "title": "Unauthorized",
                    "message": "The request you have made requires authentication.",
                }
            }
            assert answer.headers["WWW-Authenticate"] == f'Keystone uri="{keystone.url}"'
            assert "openstack-api-version" not in answer.headers
        assert (await http.post("/v1/audits", json={})).status_code == 401
        assert keystone.asked == []
        answer = await http.get("/v1/goals", headers=with_token("tok-admin"))
        assert answer.status_code == 200
        assert answer.json()["goals"]
        assert (await http.get("/v1/goals", headers=with_token("unknown"))).status_code == 401


async def test_everybodys_answer_has_a_request_id(guarded: Any, keystone: Keystone) -> None:
    keystone.issue("tok", "admin")
    async with guarded() as http:
        paths = [("/", ""), ("/v1", ""), ("/v1/goals", "tok"), ("/v1/goals/none", "tok"), ("/v1/goals?limit=-1", "tok")]
        answers = [await http.get(path, headers=with_token(token)) for path, token in paths]
    assert [answer.status_code for answer in answers] == [200, 401, 200, 404, 400]
    ids = {answer.headers["x-openstack-request-id"] for answer in answers}
    assert len(ids) == 5
    assert all(one.startswith("req-") and len(one) == 40 for one in ids)


async def test_a_role_that_is_missing_is_told_by_the_rule(guarded: Any, keystone: Keystone) -> None:
    keystone.issue("tok-member", "member")
    async with guarded() as http:
        answer = await http.get("/v1/goals", headers=with_token("tok-member"))
        assert answer.status_code == 403
        fault = json.loads(answer.json()["error_message"])
        assert fault["faultstring"] == "Policy doesn't allow goal:get_all to be performed."
        assert fault["faultcode"] == "Client"
        # The root of the API needs a token and no role, as in Watcher.
        assert (await http.get("/v1", headers=with_token("tok-member"))).status_code == 200


async def test_what_is_not_there_is_told_before_what_is_not_allowed(guarded: Any, keystone: Keystone) -> None:
    keystone.issue("tok-member", "member")
    async with guarded() as http:
        member = with_token("tok-member")
        assert (await http.get("/v1/audits/no-such", headers=member)).status_code == 404
        assert (await http.get("/v1/goals/dummy", headers=member)).status_code == 403
        assert (await http.get("/v1/scoring_engines/no-such", headers=member)).status_code == 403


async def test_an_expired_or_revoked_token_is_refused(guarded: Any, keystone: Keystone) -> None:
    keystone.issue("tok-late", "admin", lasts=timedelta(seconds=-1))
    keystone.issue("tok", "admin")
    async with guarded(keystone_authtoken={"token_cache_time": 0.0}) as http:
        assert (await http.get("/v1", headers=with_token("tok-late"))).status_code == 401
        assert (await http.get("/v1", headers=with_token("tok"))).status_code == 200
        del keystone.tokens["tok"]
        assert (await http.get("/v1", headers=with_token("tok"))).status_code == 401


async def test_keystone_that_is_down_or_broken_gives_503(guarded: Any, keystone: Keystone) -> None:
    keystone.issue("tok", "admin")
    async with guarded() as http:
        keystone.broken = True
        answer = await http.get("/v1", headers=with_token("tok"))
        assert answer.status_code == 503
        assert answer.json()["error"]["title"] == "Service Unavailable"
        keystone.broken = False
        assert (await http.get("/v1", headers=with_token("tok"))).status_code == 200
    async with guarded(keystone_authtoken={"auth_url": "http://127.0.0.1:9"}) as http:
        assert (await http.get("/v1", headers=with_token("tok"))).status_code == 503
    async with guarded(keystone_authtoken={"password": "something else"}) as http:
        assert (await http.get("/v1", headers=with_token("tok"))).status_code == 503


async def test_a_service_token_that_ended_is_renewed(guarded: Any, keystone: Keystone) -> None:
    keystone.issue("one", "admin")
    keystone.issue("two", "admin")
    async with guarded() as http:
        assert (await http.get("/v1", headers=with_token("one"))).status_code == 200
        keystone.service_tokens.clear()
        assert (await http.get("/v1", headers=with_token("two"))).status_code == 200


async def test_one_token_is_asked_about_once_however_many_come_with_it(guarded: Any, keystone: Keystone) -> None:
    keystone.issue("tok", "admin")
    keystone.gate.clear()
    async with guarded() as http:
        asking = [asyncio.create_task(http.get("/v1", headers=with_token("tok"))) for _ in range(20)]
        await asyncio.to_thread(keystone.was_asked.wait, 10.0)
        asking[0].cancel()  # who hangs up takes nothing from the others
        keystone.gate.set()
        answers = await asyncio.gather(*asking[1:])
        assert {answer.status_code for answer in answers} == {200}
        await http.get("/v1", headers=with_token("tok"))
    assert keystone.asked == ["tok"]


async def test_tokens_that_cannot_be_are_not_asked_about(guarded: Any, keystone: Keystone) -> None:
    async with guarded() as http:
        for odd in ("x" * 20_000, "a\tb", "töken"):
            headers = [(b"x-auth-token", odd.encode("utf-8"))]
            assert (await http.get("/v1", headers=headers)).status_code == 401
        twice = [("X-Auth-Token", "tok"), ("X-Auth-Token", "other")]
        keystone.issue("tok", "admin")
        assert (await http.get("/v1", headers=twice)).status_code == 401
    assert keystone.asked == []


async def test_headers_that_claim_an_identity_are_worth_nothing(guarded: Any, keystone: Keystone) -> None:
    keystone.issue("tok", "member")
    async with guarded() as http:
        claims = {
            "X-Roles": "admin",
            "X-User-Id": "root",
            "X-Identity-Status": "Confirmed",
            "X-Is-Admin-Project": "True",
        }
        assert (await http.get("/v1/goals", headers=claims)).status_code == 401
        assert (await http.get("/v1/goals", headers=claims | with_token("tok"))).status_code == 403


async def test_webhooks_are_open_only_when_the_settings_say_so(guarded: Any, keystone: Keystone) -> None:
    async with guarded(enable_webhooks_auth=False) as http:
        for path in ("/v1/webhooks/none", "/webhooks/none", "//v1//webhooks//none"):
            assert (await http.post(path, json={})).status_code == 404
        for path in ("/v1/webhooks", "/v1/webhooksx/a", "/v1/webhooks/../goals", "/v1/goals"):
            assert (await http.get(path)).status_code == 401, path
    keystone.issue("tok-service", "service")
    keystone.issue("tok-member", "member")
    async with guarded() as http:
        assert (await http.post("/v1/webhooks/none", json={})).status_code == 401
        assert (await http.post("/v1/webhooks/none", json={}, headers=with_token("tok-service"))).status_code == 404


# -- remembering ----------------------------------------------------------------------------------------------------


async def test_answers_are_believed_for_a_while_and_no_longer_than_the_token_lasts() -> None:
    now, asked = [1000.0], []

    def ask(token: str) -> tuple[Caller, float] | None:
        asked.append(token)
        return Caller(token), 1200.0 if token == "short" else 9999.0

    tokens = Tokens(ask, keep_s=300.0, size=2, workers=1, now=lambda: now[0])
    for token in ("short", "long", "short", "long"):
        assert await tokens.caller(token) == Caller(token)
    assert asked == ["short", "long"]
    now[0] = 1200.0
    assert await tokens.caller("short") is None
    assert await tokens.caller("long") == Caller("long")
    assert asked == ["short", "long", "short"]
    now[0] = 1300.0
    await tokens.caller("long")
    await tokens.caller("third")
    await tokens.caller("fourth")  # there is room for two
    assert tokens.remembered("long") is None
    assert tokens.remembered("fourth") == Caller("fourth")
    assert asked[3:] == ["long", "third", "fourth"]


async def test_a_failure_is_not_remembered(keystone: Keystone) -> None:
    section = KeystoneSettings(auth_url=keystone.url, username="trimtab", password=SERVICE_PASSWORD)
    tokens = Tokens(validator(section), keep_s=300.0, size=10, workers=1)
    keystone.broken = True
    with pytest.raises(KeystoneUnreachable, match="cannot validate tokens"):
        await tokens.caller("tok")
    keystone.broken = False
    keystone.issue("tok", "admin", "reader")
    found = await tokens.caller("tok")
    assert found is not None
    assert found.roles == ("admin", "reader")
    assert (found.user_id, found.project_id, found.user_domain_id) == ("id-of-tok", "p1", "default")


async def test_nobody_waits_long_for_a_keystone_that_hangs_and_one_question_at_a_time_tries_again() -> None:
    gate, asked = threading.Event(), []

    def ask(token: str) -> tuple[Caller, float]:
        asked.append(token)
        gate.wait(30.0)
        return Caller(token), time.time() + 60.0

    tokens = Tokens(ask, keep_s=300.0, size=10, workers=2, patience_s=0.05)
    first = await asyncio.gather(*(tokens.caller(name) for name in ("a", "b", "c")), return_exceptions=True)
    assert [str(one) for one in first] == ["Keystone did not answer within 0.05 s"] * 3
    with pytest.raises(KeystoneUnreachable, match="being asked again"):
        await tokens.caller("d")
    assert asked == ["a", "b"]  # there are two who ask
    gate.set()
    await asyncio.gather(*tokens.waiting())
    assert [tokens.remembered(name) for name in ("a", "b", "c")] == [Caller("a"), Caller("b"), Caller("c")]
    assert await tokens.caller("d") == Caller("d")


# -- policies -------------------------------------------------------------------------------------------------------


async def test_an_operators_policy_file_is_obeyed_and_read_again_when_it_changes(
    guarded: Any, keystone: Keystone, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(
        '"goal:get_all": "role:reader"\n"audit:get_all": "rule:goal:get_all and project_id:%(project_id)s"\n'
    )
    keystone.issue("reader", "reader")
    keystone.issue("admin", "admin")
    async with guarded(policy_file=file) as http:

        async def status(path: str, token: str) -> int:
            return (await http.get(path, headers=with_token(token))).status_code

        assert [await status("/v1/goals", one) for one in ("reader", "admin")] == [200, 403]
        assert [await status("/v1/audits", one) for one in ("reader", "admin")] == [200, 403]
        assert [await status("/v1/strategies", one) for one in ("reader", "admin")] == [403, 200]
        write_anew(file, '"goal:get_all": "@"\n')
        assert [await status("/v1/goals", one) for one in ("reader", "admin")] == [200, 200]
        assert [await status("/v1/audits", one) for one in ("reader", "admin")] == [403, 200]
        write_anew(file, '"goal:get_all": [unfinished\n')
        assert [await status("/v1/goals", one) for one in ("reader", "admin")] == [200, 200]
        assert "policies stay as they were" in caplog.text
        write_anew(file, '"goal:get_all": "!"\n')
        assert [await status("/v1/goals", one) for one in ("reader", "admin")] == [403, 403]


def write_anew(file: Path, text: str) -> None:
    """As editors do: another file under the same name, whatever the clock's resolution."""
    part = file.with_suffix(".part")
    part.write_text(text)
    os.replace(part, file)


def test_everything_wrong_in_a_policy_file_is_told_at_once(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text('"goal:get": "role:a and"\n"goal:detail": 5\n"audit:get": "role:x"\n')
    with pytest.raises(InvalidInput, match=r"goal:get: .*cannot be understood.*goal:detail: write the rule as a text"):
        Policies(file)
    file.write_text('"goal:get": "rule:nobody"\n"x": "rule:x"\n')
    _, faults = read_rules(file)
    assert "goal:get" in faults[0]
    assert "x" in faults[0]
    with pytest.raises(InvalidInput, match="cannot be read"):
        Policies(tmp_path / "none.yaml")
    assert unknown(["goals:get", "my_own_rule"]) == ["nothing asks after goals:get: did you mean goal:get?"]


async def test_the_policy_file_of_the_documentation_does_what_is_said_there(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "security.md").read_text()
    (text,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    file = tmp_path / "policy.yaml"
    file.write_text(text)
    rules, faults = read_rules(file)
    assert (faults, unknown(rules)) == ([], [])
    policies = Policies(file)

    async def may(rule: str, caller: Caller) -> bool:
        try:
            await policies.judge(rule, caller)
        except Forbidden:
            return False
        return True

    looks_on = Caller("1", roles=("reader",), project_name="operations")
    elsewhere = Caller("2", roles=("reader",), project_name="other")
    admin, night = Caller("3", roles=("admin",)), Caller("4", user_name="night-shift")
    assert [await may("audit:get_all", one) for one in (looks_on, elsewhere, admin, night)] == [
        True,
        False,
        True,
        False,
    ]
    assert [await may("action_plan:start", one) for one in (looks_on, admin, night)] == [False, False, True]
    assert await may("audit:create", admin)
    for kind, acts in OF_TRIMTAB.items():
        told = re.search(rf"`{kind}:\{{?([\w,]+)\}}?`", page)
        assert told is not None, kind
        assert sorted(told[1].split(",")) == sorted(acts), kind


async def test_every_route_but_discovery_asks_after_a_rule_that_exists(idle: Any) -> None:
    def rules(dependant: Any) -> Iterator[str]:
        for one in dependant.dependencies:
            if hasattr(one.call, "rule"):
                yield one.call.rule
            yield from rules(one)

    routes = [route for route in routes_of(idle.app.router) if isinstance(route, APIRoute)]
    asked = {f"{min(route.methods or ())} {route.path}": sorted(set(rules(route.dependant))) for route in routes}
    assert len(asked) > 40
    assert {path for path, found in asked.items() if not found} == {"GET /", "GET /v1"}
    assert {rule for found in asked.values() for rule in found} <= set(DEFAULTS)


def routes_of(router: Any) -> Iterator[Any]:
    for route in router.routes:
        inner = getattr(route, "original_router", None)
        if inner is not None:
            yield from routes_of(inner)
        else:
            yield route


# -- our own command line -------------------------------------------------------------------------------------------


async def test_the_command_line_and_the_client_show_a_token(idle: Any, keystone: Keystone, tmp_path: Path) -> None:
    keystone.issue("tok-admin", "admin")
    keystone.issue("tok-reader", "reader")
    app = create_app(replace(idle.app.state.backend, settings=settings_for(keystone, tmp_path)))

    def told(url: str, token: str) -> Any:
        environment = {"TRIMTAB_URL": url, "TRIMTAB_TOKEN": token}
        return CliRunner().invoke(command_line, ["audit", "list", "--json"], env=environment)

    async with on_a_socket(app) as url:
        assert (await asyncio.to_thread(told, url, "tok-admin")).output == "[]\n"
        for token in ("", "tok-that-ended"):
            refused = await asyncio.to_thread(told, url, token)
            assert isinstance(refused.exception, Forbidden)
            assert "export TRIMTAB_TOKEN=$(openstack token issue -f value -c id)" in str(refused.exception)
        refused = await asyncio.to_thread(told, url, "tok-reader")
        assert isinstance(refused.exception, Forbidden)
        assert "audit:get_all" in str(refused.exception)
        with Client(url, token="tok-admin") as client:
            assert await asyncio.to_thread(client.all, "audits") == []


async def test_the_command_line_signs_in_as_the_environment_says(idle: Any, keystone: Keystone, tmp_path: Path) -> None:
    keystone.issue("token-0", "admin")  # what the stand-in gives to the first who signs in
    app = create_app(replace(idle.app.state.backend, settings=settings_for(keystone, tmp_path)))

    def told(url: str, **more: str) -> Any:
        return CliRunner().invoke(command_line, ["audit", "list", "--json"], env={"TRIMTAB_URL": url, **more})

    async with on_a_socket(app) as url:
        with on_loopback(StandIn(1, 1)) as cloud:
            clouds = tmp_path / "clouds.yaml"
            auth = {
                "auth_url": f"{cloud.url}/identity/v3", "username": "u", "password": "secret", "project_name": "p",
                "user_domain_name": "Default", "project_domain_name": "Default",
            }  # fmt: skip
            clouds.write_text(json.dumps({"clouds": {"ours": {"auth": auth, "region_name": "r"}}}))
            signed = {"OS_CLIENT_CONFIG_FILE": str(clouds), "OS_CLOUD": "ours"}
            assert (await asyncio.to_thread(told, url, **signed)).output == "[]\n"
            assert cloud.calls["/identity/v3/auth/tokens"] == 1
            with Client(url, token="one-that-ended", sign_in=lambda: "token-0") as client:
                assert await asyncio.to_thread(client.all, "audits") == []
            unknown = await asyncio.to_thread(told, url, **{**signed, "OS_CLOUD": "nowhere"})
        gone = await asyncio.to_thread(told, url, **signed)
    assert isinstance(unknown.exception, Forbidden)
    assert "nowhere" in str(unknown.exception)
    assert isinstance(gone.exception, Forbidden)
    assert "Keystone gives no token" in str(gone.exception)
    assert "secret" not in str(gone.exception)


# -- secrets --------------------------------------------------------------------------------------------------------


async def test_no_log_of_a_run_has_a_token_or_a_password(
    guarded: Any, keystone: Keystone, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    token = keystone.issue("gAAAAABm" + "q" * 60, "admin")
    async with guarded() as http:
        await http.get("/v1/goals", headers=with_token(token))
        await http.get(f"/v1/goals/{token}", headers=with_token(token))
        await http.get("/v1/goals", headers=with_token("gAAAAABm" + "z" * 60))
        logging.getLogger("somebody.else").error("password=%s X-Auth-Token: abcdef", SERVICE_PASSWORD)
        logging.getLogger("kombu").warning("cannot reach %s", "rabbit://trimtab:hunter2hunter2@rabbit:5672//")
        try:
            int(f"with {SERVICE_PASSWORD} in it")
        except ValueError:
            logging.getLogger("somebody.else").exception("failed")
    assert "keystoneauth" in caplog.text  # its own debugging output is among what was looked at
    assert "POST" in caplog.text
    for secret in (token, "z" * 60, SERVICE_PASSWORD, "hunter2", "gAAAAAservice", "abcdef"):
        assert secret not in caplog.text
    assert "rabbit://trimtab:***@rabbit:5672//" in caplog.text
    assert "with *** in it" in caplog.text
