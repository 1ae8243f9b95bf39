"""/v1/webhooks: an alarm calls one, and an EVENT audit runs."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Response

from trimtab.platform.errors import Conflict, InvalidInput
from trimtab.platform.records import Audit
from trimtab.platform.states import AuditState
from trimtab.platform.store.views import View
from trimtab.serve.arguments import Route, read_any
from trimtab.serve.policy import allowed
from trimtab.serve.resources import Wired, stored

router = APIRouter(prefix="/v1/webhooks", tags=["webhooks"], route_class=Route)

Ignored = Annotated[Any, Depends(read_any)]
Named = Annotated[View[Audit], Depends(stored(Audit))]
May = Annotated[None, allowed("webhook:trigger")]


@router.post("/{ident}", status_code=202)
async def trigger(_: Ignored, __: May, seen: Named, wired: Wired) -> Response:
    """Run an EVENT audit (id, uuid or name). There must be a JSON body, such as an alarm sends; it is not looked at."""
    audit = seen.row
    if audit.audit_type != "EVENT":
        raise InvalidInput(f"Audit type {audit.audit_type} is disallowed.")
    if audit.state not in {AuditState.PENDING, AuditState.SUCCEEDED}:
        raise InvalidInput(f"Audit state {audit.state} is disallowed.")
    try:
        await wired.store.update(Audit, audit.uuid, {"triggered_at": datetime.now(UTC)}, state=audit.state)
    except Conflict as error:  # its state has changed since
        now = await wired.store.get(Audit, audit.uuid)
        raise InvalidInput(f"Audit state {now.state} is disallowed.") from error
    await wired.audit_created()
    return Response(status_code=202)
