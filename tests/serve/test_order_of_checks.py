"""What is told first: wrong arguments (400), then unknown objects (404), then what the caller may not do (403)."""

import json
from typing import Any

import pytest

from trimtab.serve.policy import Policies

JSON = {"Content-Type": "application/json"}


def fault(answer: Any) -> str:
    return str(json.loads(answer.json()["error_message"])["faultstring"])


@pytest.fixture
def refusing(shared: Any, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, dict[str, str]]:
    """The shared server, where rules are asked after and callers have no role."""
    template = {"name": "kept", "goal": "dummy"}
    monkeypatch.setattr(shared.app.state, "policies", Policies(), raising=False)
    return shared, template


@pytest.mark.parametrize(
    ("method", "path", "rule"),
    [
        ("GET", "/v1/goals", "goal:get_all"),
        ("GET", "/v1/goals/detail", "goal:detail"),
        ("GET", "/v1/goals/dummy", "goal:get"),
        ("GET", "/v1/strategies", "strategy:get_all"),
        ("GET", "/v1/strategies/detail", "strategy:detail"),
        ("GET", "/v1/strategies/dummy", "strategy:get"),
        ("GET", "/v1/scoring_engines", "scoring_engine:get_all"),
        ("GET", "/v1/scoring_engines/detail", "scoring_engine:detail"),
        ("GET", "/v1/scoring_engines/dummy_scorer", "scoring_engine:get"),
        ("GET", "/v1/services", "service:get_all"),
        ("GET", "/v1/services/detail", "service:detail"),
        ("GET", "/v1/audit_templates", "audit_template:get_all"),
        ("GET", "/v1/audit_templates/detail", "audit_template:detail"),
        ("POST", "/v1/audit_templates", "audit_template:create"),
        ("GET", "/v1/audits", "audit:get_all"),
        ("GET", "/v1/audits/detail", "audit:detail"),
        ("POST", "/v1/audits", "audit:create"),
        ("GET", "/v1/strategies/dummy/state", "strategy:state"),
        ("GET", "/v1/action_plans", "action_plan:get_all"),
        ("GET", "/v1/action_plans/detail", "action_plan:detail"),
        ("GET", "/v1/actions", "action:get_all"),
        ("GET", "/v1/actions/detail", "action:detail"),
        ("GET", "/v1/data_model", "data_model:get_all"),
        ("POST", "/v1/webhooks/nope", "webhook:trigger"),
    ],
)
async def test_every_route_asks_after_its_own_rule(refusing: Any, method: str, path: str, rule: str) -> None:
    api, body = refusing
    body = {"audit_type": "ONESHOT", "goal": "dummy"} if path == "/v1/audits" else body
    answer = await api.http.request(method, path, json=body if method == "POST" else None)
    assert (answer.status_code, fault(answer)) == (403, f"Policy doesn't allow {rule} to be performed.")


@pytest.mark.parametrize(
    ("method", "path", "content", "status"),
    [
        ("GET", "/v1/goals?bogus=1", None, 400),
        ("GET", "/v1/goals?limit=ten", None, 400),
        ("GET", "/v1/goals?limit=0", None, 403),  # its value is looked at when the list is made
        ("GET", "/v1/goals/nope", None, 404),
        ("GET", "/v1/strategies/nope", None, 404),
        ("GET", "/v1/services/nope", None, 404),
        ("GET", "/v1/audit_templates/nope", None, 404),
        ("DELETE", "/v1/audit_templates/nope", None, 404),
        ("GET", "/v1/scoring_engines/nope", None, 403),  # who may not see them is not told which there are
        ("GET", "/v1/strategies/nope/state", None, 403),
        ("POST", "/v1/webhooks/nope", b"{}", 403),
        ("POST", "/v1/webhooks/nope", b"", 400),
        ("GET", "/v1/data_model?data_model_type=storage", None, 404),
        ("GET", "/v1/data_model?audit_uuid=0f6d0e1e-5f3a-4b88-8f4c-3a0d3c5b8c11", None, 403),
        ("GET", "/v1/audits/nope", None, 404),
        ("DELETE", "/v1/audits/nope", None, 404),
        ("PATCH", "/v1/audits/nope", b"[]", 404),
        ("POST", "/v1/audits", b'{"audit_type": "NEVER"}', 403),
        ("POST", "/v1/audits", b'{"audit_type": "ONESHOT", "state": "PENDING"}', 400),
        ("GET", "/v1/action_plans/nope", None, 400),
        ("GET", "/v1/action_plans/0f6d0e1e-5f3a-4b88-8f4c-3a0d3c5b8c11", None, 404),
        ("POST", "/v1/action_plans/0f6d0e1e-5f3a-4b88-8f4c-3a0d3c5b8c11/start", b"{}", 404),
        ("PATCH", "/v1/actions/0f6d0e1e-5f3a-4b88-8f4c-3a0d3c5b8c11", b"[]", 404),
        ("POST", "/v1/audit_templates", b"{nonsense", 400),
        ("POST", "/v1/audit_templates", b'{"goal": "dummy"}', 400),
        ("POST", "/v1/audit_templates", b'{"name": "x", "goal": "dummy", "moon": 1}', 400),
        ("PATCH", "/v1/audit_templates/nope", b'{"op": "add"}', 400),
        ("PATCH", "/v1/audit_templates/nope", b"[]", 404),
    ],
)
async def test_what_is_told_first(refusing: Any, method: str, path: str, content: bytes | None, status: int) -> None:
    api, _ = refusing
    answer = await api.http.request(method, path, content=content, headers=JSON)
    assert answer.status_code == status, answer.text


async def test_a_template_that_is_there_may_still_be_out_of_bounds(
    shared: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await shared.post("/v1/audit_templates", {"name": "kept", "goal": "dummy"})
    monkeypatch.setattr(shared.app.state, "policies", Policies(), raising=False)
    for method, rule in (("GET", "get"), ("PATCH", "update"), ("DELETE", "delete")):
        content = b"[]" if method == "PATCH" else None
        answer = await shared.http.request(method, "/v1/audit_templates/kept", content=content, headers=JSON)
        text = f"Policy doesn't allow audit_template:{rule} to be performed."
        assert (answer.status_code, fault(answer)) == (403, text)
