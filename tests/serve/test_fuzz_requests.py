"""Requests that no client should send: odd bytes in paths, queries, headers and bodies; each is answered or refused."""

import json
import os
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trimtab.platform.records import Action, ActionPlan, Audit, AuditTemplate, Goal, Service, Strategy, WhatIf
from trimtab.serve.app import PARTS

EXAMPLES = 25 * int(os.environ.get("TRIMTAB_FUZZ_EXAMPLES", "2"))
KINDS = (Goal, Strategy, AuditTemplate, Audit, ActionPlan, Action, Service, WhatIf)
PATHS = sorted({route.path for part in PARTS for route in part.router.routes})
UNKNOWN = "0f6d0e1e-5f3a-4b88-8f4c-3a0d3c5b8c11"
together = pytest.mark.asyncio(loop_scope="module")
quick = settings(
    max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


class Answer(NamedTuple):
    """What came back."""

    status: int
    headers: Mapping[bytes, bytes]
    body: bytes


async def ask(
    app: Any, method: str, path: str, query: bytes = b"", headers: Iterable[tuple[bytes, bytes]] = (), body: bytes = b""
) -> Answer:
    """One request as a server hands it on, byte for byte; the client is gone once it has sent its body."""
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "path": path,
        "raw_path": path.encode(errors="replace"), "query_string": query,
        "headers": [(b"host", b"trimtab:9322"), *headers],
        "server": ("trimtab", 9322), "client": ("127.0.0.1", 1), "scheme": "http", "root_path": "",
    }  # fmt: skip
    waiting = [{"type": "http.request", "body": body, "more_body": False}]
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return waiting.pop() if waiting else {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await app(scope, receive, send)
    start, *rest = sent
    return Answer(start["status"], dict(start["headers"]), b"".join(part.get("body", b"") for part in rest))


def rows(api: Any) -> list[Any]:
    """Everything that is stored, deleted or not."""
    return [api.store.list(kind, deleted=True) for kind in KINDS]


async def check(api: Any, method: str, *request: Any) -> Answer:
    """Ask, and see that the answer is one: no failure, an error body where it is an error, nothing lost by it."""
    before = rows(api)
    answer = await ask(api.app, method, *request)
    assert answer.status < 500 or answer.status == 503, answer
    if answer.status >= 400:
        assert answer.headers[b"content-type"] == b"application/json"
        (text,) = json.loads(answer.body).values()
        if text.startswith("{"):
            assert set(json.loads(text)) == {"faultcode", "faultstring", "debuginfo"}
    if answer.status >= 400 or method == "GET":
        assert rows(api) == before
    return answer


ODD_TEXTS = st.sampled_from(
    ["", " ", "\0", "%", "%2F", "..", ".", "-1", "007", "9" * 30, "9" * 5000, "nope", "dummy", "DUMMY", "1", "2",
     UNKNOWN, UNKNOWN.upper(), UNKNOWN.replace("-", ""), "\u0663", "\u00b2", "\ufffd", "\U0001f600", "İ", "ß",
     "'; DROP TABLE audit; --", "*", "?", "#", "\\", "<x>", "detail", "a.json", "null", "None", "x" * 5000]
) | st.text(max_size=8)  # fmt: skip
PARTS_OF_PATHS = st.sampled_from(
    ["", "v1", "v2", "goals", "audits", "detail", "state", "start", "cells", "x.json", "*"]
)
NAMES = st.sampled_from(
    ["limit", "marker", "sort_key", "sort_dir", "goal", "strategy", "audit_uuid", "action_plan_uuid", "data_model_type",
     "after", "event_type", "x", "y", "state", "name", "bogus"]
)  # fmt: skip
QUERIES = st.lists(
    st.builds(lambda name, value: name.encode() + b"=" + value, NAMES,
              st.binary(max_size=6) | ODD_TEXTS.map(lambda text: text.encode(errors="replace"))),
    max_size=3,
).map(b"&".join)  # fmt: skip
HEADERS = st.lists(
    st.tuples(st.just(b"openstack-api-version"),
              st.sampled_from([b"infra-optim latest", b"infra-optim 1.0", b"infra-optim 1.4", b"infra-optim 2.0",
                               b"infra-optim 1.999", b"infra-optim 1.2.3", b"compute 2.1", b"\xff", b""])
              | st.binary(max_size=20))
    | st.tuples(st.just(b"accept"), st.sampled_from([b"application/xml", b"text/html;q=x", b"\xff"]))
    | st.tuples(st.just(b"content-type"),
                st.sampled_from([b"application/json", b"application/json; charset=utf-16", b"text/plain", b"\xff", b";",
                                 b"application/x-www-form-urlencoded", b"multipart/form-data", b"application/xml"]))
    | st.tuples(st.sampled_from([b"x-show-deleted", b"idempotency-key", b"last-event-id", b"host", b"x-forwarded-host",
                                 b"content-length", b"x-auth-token"]), st.binary(max_size=8)),
    max_size=3,
)  # fmt: skip
METHODS = st.sampled_from(["GET", "GET", "POST", "PATCH", "DELETE", "PUT", "HEAD", "OPTIONS", "TRACE", "get", "\u00e9"])
JSONS = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats(allow_nan=False) | ODD_TEXTS
    | st.sampled_from(["ONESHOT", "CONTINUOUS", "EVENT", "PENDING", "SKIPPED", "CANCELLED", "* * * * *", "60",
                       "2030-01-01"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["name", "goal", "audit_type", "scope", "compute", "exclude", "para1", "base", "kind", "\0"]),
        inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
BROKEN = st.binary(max_size=30) | st.sampled_from(
    [b"", b"{", b"[", b'"', b"nul", b"NaN", b"[Infinity]", b"1e999", b"-", b"[1,]", b"{'a': 1}", b'{"a": 1} x', b"\0",
     b'"\\ud800"', b'"\\udc00\\ud800"', b'["\xff"]', b"\xef\xbb\xbf{}", b"{}".decode().encode("utf-16"), b"9" * 5000,
     b"[" * 20000, b"[" * 200 + b"]" * 200, b'{"a":' * 200 + b"1" + b"}" * 200]
)  # fmt: skip
BODIES = JSONS.map(lambda value: json.dumps(value).encode()) | BROKEN


@together
@quick
@given(st.data())
async def test_any_request_is_answered_or_refused(shared: Any, data: Any) -> None:
    draw = data.draw
    path = draw(st.sampled_from(PATHS))
    for name in ("ident", "number", "key", "table"):
        path = path.replace("{" + name + "}", draw(ODD_TEXTS))
    match draw(st.integers(0, 5)):
        case 0:
            path = "/".join(["", *draw(st.lists(PARTS_OF_PATHS | ODD_TEXTS, max_size=4))])
        case 1:
            path = path.replace("/", "//").removeprefix(draw(st.sampled_from(["", "//v1", "/"])))
        case 2:
            path += draw(st.sampled_from(["/", ".json", "/detail", "/detail/", "/state", "\ud800"]))
    await check(shared, draw(METHODS), path, draw(QUERIES), draw(HEADERS), draw(BODIES))


FIELDS = (
    "name", "description", "goal", "strategy", "scope", "default_parameters", "audit_type", "interval", "parameters",
    "audit_template_uuid", "auto_trigger", "force", "start_time", "end_time", "state", "uuid",
)  # fmt: skip
ROOTS = (
    "name", "state", "interval", "parameters", "scope", "goal", "goal_id", "strategy", "strategy_id", "hostname",
    "force", "auto_trigger", "next_run_time", "start_time", "end_time", "audit_type", "status_message",
    "global_efficacy", "audit_id", "description", "default_parameters", "uuid", "id", "epoch", "owner",
    "triggered_at", "x",
)  # fmt: skip
LATEST = ((b"openstack-api-version", b"infra-optim latest"), (b"content-type", b"application/json"))


@together
@quick
@given(
    st.sampled_from(["audits", "audit_templates"]),
    st.sampled_from([{"goal": "dummy"}, {"goal": "dummy", "strategy": "dummy"}, {}]),
    st.dictionaries(st.sampled_from(FIELDS), JSONS, max_size=2),
    st.sampled_from(["ONESHOT", "EVENT", None]),
)
async def test_any_new_object_is_stored_as_it_is_answered_or_refused(
    shared: Any, collection: str, base: Any, odd: Any, audit_type: Any
) -> None:
    own = {"audit_type": audit_type} if collection == "audits" else {"name": str(uuid4())}
    body = json.dumps({**base, **own, **odd}).encode()
    answer = await check(shared, "POST", f"/v1/{collection}", b"", LATEST, body)
    if answer.status == 201:
        made = json.loads(answer.body)
        assert await shared.get(f"/v1/{collection}/{made['uuid']}") == made
    else:
        assert answer.status in {400, 404, 409}, answer


PATCHES = st.lists(
    st.builds(
        lambda op, names, value: {"op": op, "path": "/" + "/".join(names), "value": value},
        st.sampled_from(["add", "replace", "replace", "remove", "move", 5]),
        st.lists(st.sampled_from(ROOTS), min_size=1, max_size=1).flatmap(
            lambda root: st.just(root) | st.sampled_from(["0", "-", "para1", "x"]).map(lambda name: [*root, name])
        ),
        JSONS,
    ),
    max_size=3,
)  # fmt: skip


def one_of_each(store: Any) -> dict[str, str]:
    """The uuids of a template, an audit, a plan and an action of their own."""
    goal, strategy = store.get(Goal, "dummy"), store.get(Strategy, "dummy")
    template = store.create(
        AuditTemplate(uuid=str(uuid4()), name=str(uuid4()), goal_id=goal.id, default_parameters={"para1": 2.0})
    )
    audit = store.create(
        Audit(uuid=str(uuid4()), name=str(uuid4()), audit_type="CONTINUOUS", state="PENDING", goal_id=goal.id,
              interval="60", parameters={"para1": 2.0}, scope=[{"compute": []}])
    )  # fmt: skip
    plan = store.create(ActionPlan(uuid=str(uuid4()), audit_id=audit.id, strategy_id=strategy.id, state="RECOMMENDED"))
    action = store.create(Action(uuid=str(uuid4()), action_plan_id=plan.id, action_type="nop", state="PENDING"))
    made = {"audit_templates": template, "audits": audit, "action_plans": plan, "actions": action}
    return {collection: one.uuid for collection, one in made.items()}


@together
@quick
@given(st.sampled_from(["audit_templates", "audits", "action_plans", "actions"]), PATCHES | JSONS)
async def test_any_patch_is_kept_as_it_is_answered_or_refused(shared: Any, collection: str, operations: Any) -> None:
    path = f"/v1/{collection}/{one_of_each(shared.store)[collection]}"
    answer = await check(shared, "PATCH", path, b"", LATEST, json.dumps(operations).encode())
    assert answer.status in {200, 400, 404, 409}, answer
    if answer.status == 200:
        shown = await shared.http.get(path, headers={"X-Show-Deleted": "1"})
        assert shown.json() == json.loads(answer.body)
        for listed in (f"/v1/{collection}", f"/v1/{collection}/detail"):
            assert (await shared.http.get(listed)).status_code == 200, "what was patched can still be listed"
