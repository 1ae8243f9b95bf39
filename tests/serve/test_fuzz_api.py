"""Schemathesis against our own OpenAPI: whatever it thinks of, answers are as described, never a failure of ours."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio
import schemathesis
import uvicorn
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from trimtab.platform.records import (
    Action,
    ActionPlan,
    Audit,
    AuditTemplate,
    CandidateRecord,
    EfficacyIndicator,
    Explanation,
    Goal,
    Record,
    ScoringEngine,
    Service,
    Strategy,
    WhatIf,
)
from trimtab.serve.app import PARTS

EXAMPLES = int(os.environ.get("TRIMTAB_FUZZ_EXAMPLES", "2"))  # of each operation, right and wrong ones each
CHECKS = [
    not_a_server_error, status_code_conformance, content_type_conformance, response_headers_conformance,
    response_schema_conformance,
]  # fmt: skip
OPERATIONS = sorted((method, route.path) for part in PARTS for route in part.router.routes for method in route.methods)
COUNTED = (Goal, Strategy, AuditTemplate, Audit, ActionPlan, Action, WhatIf, Service)
KINDS: dict[str, type[Record]] = {
    "goals": Goal, "strategies": Strategy, "scoring_engines": ScoringEngine, "services": Service,
    "audit_templates": AuditTemplate, "audits": Audit, "webhooks": Audit, "action_plans": ActionPlan,
    "actions": Action, "whatifs": WhatIf,
}  # fmt: skip
together = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(shared: Any) -> AsyncIterator[tuple[Any, str, Any]]:
    """The shared server on a socket, and its description as Schemathesis understands it."""
    server = uvicorn.Server(uvicorn.Config(shared.app, log_level="error", lifespan="off"))
    with socket.create_server(("127.0.0.1", 0)) as waiting:
        task = asyncio.create_task(server.serve(sockets=[waiting]))
        url = f"http://127.0.0.1:{waiting.getsockname()[1]}"
        yield shared, url, schemathesis.openapi.from_dict(await shared.get("/openapi.json"))
        server.should_exit = True
        await task


def stock(store: Any) -> None:
    """One more of everything, so that there is something to show, patch and delete."""
    goal, strategy = store.get(Goal, "dummy"), store.get(Strategy, "dummy")
    template = AuditTemplate(uuid=str(uuid4()), name=str(uuid4()), goal_id=goal.id, strategy_id=strategy.id)
    event, cron, ended = (
        Audit(uuid=str(uuid4()), name=str(uuid4()), audit_type=audit_type, state=state, interval=interval,
              goal_id=goal.id, strategy_id=strategy.id)
        for audit_type, state, interval in (
            ("EVENT", "PENDING", None), ("CONTINUOUS", "ONGOING", "* * * * *"), ("ONESHOT", "SUCCEEDED", None)
        )
    )  # fmt: skip
    store.create_many([template, event, cron, ended])
    audit = store.get(Audit, ended.uuid)
    plan = store.create(ActionPlan(uuid=str(uuid4()), audit_id=audit.id, strategy_id=strategy.id, state="RECOMMENDED"))
    action = Action(uuid=str(uuid4()), action_plan_id=plan.id, action_type="nop", state="PENDING")
    moment = datetime.now(UTC)
    store.create_many(
        [
            action,
            EfficacyIndicator(uuid=str(uuid4()), action_plan_id=plan.id, name="moves", data=1.0),
            Explanation(uuid=action.uuid, action_plan_id=plan.id, reason={"why": "it is a test"}),
            CandidateRecord(uuid=str(uuid4()), audit_id=audit.id, number=0, strategy_name="dummy", verdict="chosen"),
            Service(uuid=str(uuid4()), name=str(uuid4()), host="h", last_seen_up=moment),
            WhatIf(uuid=str(uuid4()), name="what-if", state="SUCCEEDED", cells_total=1),
        ]
    )


@together
@pytest.mark.parametrize(("method", "path"), OPERATIONS, ids=lambda given: given)
async def test_answers_are_as_described_and_refusals_leave_everything_as_it_was(
    served: Any, method: str, path: str
) -> None:
    api, url, schema = served
    stock(api.store)
    operation = schema[path][method]
    kind = KINDS.get(path.split("/")[2]) if path.startswith("/v1/") else None
    idents = [str(ident) for row in api.store.list(kind) for ident in (row.id, row.uuid)] if kind else []

    @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def ask(mode: GenerationMode, data: Any) -> None:
        case = data.draw(operation.as_strategy(generation_mode=mode))
        if idents and "ident" in (case.path_parameters or {}) and data.draw(st.booleans()):
            case.path_parameters["ident"] = data.draw(st.sampled_from(idents))
        if path == "/v1/events":
            case.query = {**(case.query or {}), "follow": "false"}
        before = [api.store.count(one) for one in COUNTED]
        answer = case.call(base_url=url, timeout=30)
        case.validate_response(answer, checks=CHECKS)
        if answer.status_code not in {201, 204}:
            assert [api.store.count(one) for one in COUNTED] == before

    await asyncio.to_thread(ask, GenerationMode.POSITIVE)
    with suppress(Unsatisfiable):  # where nothing wrong can be thought of
        await asyncio.to_thread(ask, GenerationMode.NEGATIVE)
