"""Who may come in and do what, as a real Keystone says: Trimtab on a socket behind it."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from tests.peers.identity import Keystone, Relay
from tests.serve.conftest import Whole, on_a_socket, whole

from trimtab.platform.settings import Settings
from trimtab.serve.app import create_app
from trimtab.simulator.truth import CloudSpec

pytestmark = [pytest.mark.peers, pytest.mark.timeout(600), pytest.mark.asyncio(loop_scope="module")]

EVENT = {"audit_type": "EVENT", "goal": "dummy", "name": "on-alarm"}
# One request for each of Watcher's rules that needs no record to be there.
ASKED = {
    "goal:get_all": ("GET", "/v1/goals"),
    "goal:detail": ("GET", "/v1/goals/detail"),
    "goal:get": ("GET", "/v1/goals/dummy"),
    "strategy:get_all": ("GET", "/v1/strategies"),
    "strategy:detail": ("GET", "/v1/strategies/detail"),
    "strategy:get": ("GET", "/v1/strategies/dummy"),
    "strategy:state": ("GET", "/v1/strategies/dummy/state"),
    "audit_template:get_all": ("GET", "/v1/audit_templates"),
    "audit_template:detail": ("GET", "/v1/audit_templates/detail"),
    "audit:get_all": ("GET", "/v1/audits"),
    "audit:detail": ("GET", "/v1/audits/detail"),
    "audit:get": ("GET", "/v1/audits/on-alarm"),
    "action_plan:get_all": ("GET", "/v1/action_plans"),
    "action_plan:detail": ("GET", "/v1/action_plans/detail"),
    "action:get_all": ("GET", "/v1/actions"),
    "action:detail": ("GET", "/v1/actions/detail"),
    "scoring_engine:get_all": ("GET", "/v1/scoring_engines"),
    "scoring_engine:detail": ("GET", "/v1/scoring_engines/detail"),
    "scoring_engine:get": ("GET", "/v1/scoring_engines/dummy_scorer"),
    "service:get_all": ("GET", "/v1/services"),
    "service:detail": ("GET", "/v1/services/detail"),
}


class People:
    """Users of the cloud and a token of each."""

    def __init__(self, keystone: Keystone) -> None:
        keystone.user("trimtab", "service", ["service"])
        keystone.user("member", "ours", ["member"])
        keystone.user("reader", "ours", ["reader"])
        keystone.user("stranger", "theirs", ["member"])
        keystone.user("boss", "theirs", ["admin"])
        keystone.user("aodh", "service", ["service"])
        self.ours = keystone.project("ours")
        where = {"admin": "admin", "member": "ours", "reader": "ours", "stranger": "theirs", "boss": "theirs"}
        self.tokens = {name: keystone.token(name, project) for name, project in {**where, "aodh": "service"}.items()}

    def __getitem__(self, name: str) -> dict[str, str]:
        """The header of a request of somebody."""
        return {"X-Auth-Token": self.tokens[name]}


@pytest.fixture(scope="module")
def people(keystone: Keystone) -> People:
    return People(keystone)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Whole]:
    """Records and a cloud, at rest."""
    spec = CloudSpec(hosts=6, instances=20, seed=3)
    async with whole(tmp_path_factory.mktemp("trimtab"), spec, working=False) as made:
        await made.post("/v1/audits", EVENT)
        yield made


@pytest.fixture(scope="module")
def behind(running: Whole, keystone: Keystone, people: People, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Trimtab on a socket, with settings of the test's own."""

    @asynccontextmanager
    async def client(auth_url: str = "", **more: Any) -> AsyncIterator[httpx.AsyncClient]:
        section: dict[str, Any] = {
            "auth_url": auth_url or keystone.url,
            "www_authenticate_uri": keystone.url,
            "username": "trimtab",
        }
        section |= {"password": keystone.passwords["trimtab"], "http_connect_timeout": 2.0}
        section |= more.pop("keystone_authtoken", {})
        settings = Settings(
            data_dir=tmp_path_factory.mktemp("data"), auth="keystone", keystone_authtoken=section, **more
        )
        app = create_app(replace(running.app.state.backend, settings=settings))
        async with on_a_socket(app) as url, httpx.AsyncClient(base_url=url, timeout=60.0, trust_env=False) as http:
            yield http

    return client


Behind = Callable[..., Any]


async def statuses(http: httpx.AsyncClient, who: dict[str, str]) -> dict[str, int]:
    return {rule: (await http.request(*how, headers=who)).status_code for rule, how in ASKED.items()}


# -- who may do what ------------------------------------------------------------------------------------------------


async def test_administrators_of_any_project_may_do_all_and_nobody_else_anything(
    behind: Behind, people: People
) -> None:
    async with behind() as http:
        for name in ("admin", "boss"):
            assert set((await statuses(http, people[name])).values()) == {200}, name
        for name in ("member", "reader", "stranger", "aodh"):
            assert set((await statuses(http, people[name])).values()) == {403}, name
        for rule, how in ASKED.items():
            answer = await http.request(*how, headers=people["reader"])
            fault = {"faultcode": "Client", "faultstring": f"Policy doesn't allow {rule} to be performed."}
            assert json.loads(answer.json()["error_message"]) == {**fault, "debuginfo": None}
            assert list(answer.json()) == ["error_message"]
        made = await http.post("/v1/audits", json={"audit_type": "ONESHOT", "goal": "dummy"}, headers=people["member"])
        assert (made.status_code, "audit:create" in made.text) == (403, True)


async def test_an_operators_file_loosens_and_tightens_and_is_read_again(
    behind: Behind, people: People, tmp_path: Path
) -> None:
    file = tmp_path / "policy.yaml"
    # Keystone's roles imply others: an admin is a member and a reader as well.
    rules = {"audit:get_all": "role:reader and project_id:" + people.ours, "goal:get": "@", "goal:get_all": "!"}
    file.write_text(json.dumps(rules))
    async with behind(policy_file=file) as http:

        async def may(who: str, rule: str) -> bool:
            answer = await http.request(*ASKED[rule], headers=people[who])
            assert answer.status_code in {200, 403}, answer.text
            return answer.status_code == 200

        assert {who: await may(who, "audit:get_all") for who in people.tokens} == {
            "admin": False, "member": True, "reader": True, "stranger": False, "boss": False, "aodh": False,
        }  # fmt: skip
        assert await may("aodh", "goal:get")
        assert not await may("admin", "goal:get_all")
        assert await may("admin", "strategy:get_all")  # of which the file says nothing
        part = tmp_path / "part"
        part.write_text(json.dumps({"goal:get_all": "role:reader", "strategy:get_all": "user_name:boss"}))
        os.replace(part, file)
        assert await may("stranger", "goal:get_all")
        assert await may("boss", "strategy:get_all")
        assert not await may("admin", "strategy:get_all")
        assert await may("admin", "audit:get_all")  # the default again
        assert not await may("reader", "audit:get_all")


async def test_webhooks_are_for_services_and_administrators_or_for_everybody(
    behind: Behind, people: People, running: Whole
) -> None:
    async def call(http: httpx.AsyncClient, headers: dict[str, str]) -> int:
        return (await http.post("/v1/webhooks/on-alarm", json={"state": "alarm"}, headers=headers)).status_code

    async with behind() as http:
        assert [await call(http, people[who]) for who in ("aodh", "admin", "member", "stranger")] == [
            202,
            202,
            403,
            403,
        ]
        assert await call(http, {}) == 401
    async with behind(enable_webhooks_auth=False) as http:
        assert await call(http, {}) == 202
        assert await call(http, {"X-Auth-Token": "wrong"}) == 202
        assert (await http.get("/v1/audits")).status_code == 401


# -- who comes in ---------------------------------------------------------------------------------------------------


async def test_tokens_that_ended_or_were_revoked_or_made_up_are_refused(
    behind: Behind, keystone: Keystone, people: People
) -> None:
    admin = keystone.user("admin", "admin", [])
    project = keystone.project("admin")

    async def status(http: httpx.AsyncClient, token: str) -> int:
        return (await http.get("/v1/goals", headers={"X-Auth-Token": token})).status_code

    async with behind(keystone_authtoken={"token_cache_time": 0.0}) as http:
        assert await status(http, keystone.token_that_lasts(admin, project, 60.0)) == 200
        assert await status(http, keystone.token_that_lasts(admin, project, -60.0)) == 401
        token = keystone.token("admin", "admin")
        assert await status(http, token) == 200
        keystone.revoke(token)
        assert await status(http, token) == 401
        for odd in (people.tokens["admin"][:-4], people.tokens["admin"] + "AAAA", "gAAAA", "x" * 9000, "../../users"):
            assert await status(http, odd) == 401, odd
    async with behind() as http:  # remembered, but no longer than it lasts
        brief = keystone.token_that_lasts(admin, project, 2.0)
        assert await status(http, brief) == 200
        await asyncio.sleep(2.1)
        assert await status(http, brief) == 401


async def test_refusals_are_those_of_keystonemiddleware(behind: Behind, keystone: Keystone, people: People) -> None:
    names = ("content-type", "content-length", "www-authenticate")
    async with behind() as http, behind("http://127.0.0.1:9") as in_vain, httpx.AsyncClient(trust_env=False) as plain:
        for headers in ({}, {"X-Auth-Token": "wrong"}, {"X-Auth-Token": ""}):
            theirs = await plain.get(f"{keystone.guarded}/v1/goals", headers=headers)
            ours = await http.get("/v1/goals", headers=headers)
            assert (ours.status_code, ours.text) == (theirs.status_code, theirs.text)
            assert ours.status_code == 401
            assert [ours.headers.get(name) for name in names] == [theirs.headers.get(name) for name in names]
        theirs = await plain.get(f"{keystone.guarded_in_vain}/v1/goals", headers=people["admin"], timeout=60.0)
        ours = await in_vain.get("/v1/goals", headers=people["admin"])
        assert ours.status_code == theirs.status_code == 503  # its body is left to the web framework there
        # The comparison is one: who is let in here is let in there.
        assert (await plain.get(keystone.guarded, headers=people["reader"])).text == "reader"


async def test_without_keystone_who_is_known_goes_on_and_others_are_told_at_once(
    behind: Behind, keystone: Keystone, people: People
) -> None:
    relay = Relay(keystone.url)
    async with behind(await relay.open()) as http:

        async def status(who: str) -> int:
            return (await http.get("/v1/goals", headers=people[who])).status_code

        assert await status("admin") == 200
        asked = relay.carried
        assert [await status("admin") for _ in range(20)] == [200] * 20
        assert relay.carried == asked
        await relay.cut()
        began = time.monotonic()
        assert await status("admin") == 200
        assert [await status("boss") for _ in range(3)] == [503] * 3
        assert time.monotonic() - began < 10.0
        await relay.mend()
        assert await status("boss") == 200
        relay.leads_nowhere = True
        began = time.monotonic()
        many = await asyncio.gather(*(status(who) for who in ("member", "reader", "stranger", "aodh") * 10))
        assert set(many) == {503}
        assert await status("admin") == 200
        assert time.monotonic() - began < 10.0
        relay.leads_nowhere = False
        answers = [503]
        while answers[-1] == 503 and len(answers) < 300:  # until the last question into the void is given up
            await asyncio.sleep(0.1)
            answers.append(await status("member"))
        assert answers[-1] == 403
    await relay.cut()


async def test_no_log_has_a_token_or_a_password(
    behind: Behind, keystone: Keystone, people: People, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with behind(keystone_authtoken={"token_cache_time": 0.0}) as http:
        for name, token in people.tokens.items():
            await http.get("/v1/goals", headers=people[name])
            await http.get(f"/v1/goals/{token}?sort_key={token}", headers=people[name])
        await http.get("/v1/goals", headers={"X-Auth-Token": people.tokens["admin"] + "x"})
    async with behind("http://127.0.0.1:9") as http:
        assert (await http.get("/v1/goals", headers=people["admin"])).status_code == 503
    assert "keystoneauth" in caplog.text
    for secret in (*people.tokens.values(), *keystone.passwords.values()):
        assert secret not in caplog.text


@pytest.fixture(scope="module", autouse=True)
def _quiet() -> Iterator[None]:
    """Reset what Trimtab sets for a whole process."""
    factory = logging.getLogRecordFactory()
    yield
    logging.setLogRecordFactory(factory)
