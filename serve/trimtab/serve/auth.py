"""Nobody comes in without a token that Keystone knows; only the front page is open to everybody."""

from __future__ import annotations

import json
import logging

from fastapi.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from trimtab.serve.keystone import KeystoneUnreachable, Tokens
from trimtab.serve.limits import Buckets, address, too_many
from trimtab.serve.transport import below_mount, one_form

log = logging.getLogger(__name__)

TOKEN = b"x-auth-token"


class Authentication:
    """Asks Keystone who a caller is and sets `state.caller`; the answers to others are those of keystonemiddleware.

    Args:
        app: what is behind it.
        tokens: who has which token.
        told_uri: Keystone's address as callers without a token are told it.
        webhooks: whether webhooks need a token too.
        attempts: bounds how often one address makes us ask Keystone.
    """

    def __init__(self, app: ASGIApp, tokens: Tokens, told_uri: str, attempts: Buckets, *, webhooks: bool) -> None:
        self.app = app
        self._tokens, self._told_uri, self._attempts, self._webhooks = tokens, told_uri, attempts, webhooks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] == "lifespan" or (scope["type"] == "http" and self._open(scope)):
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            raise PermissionError(f"{scope['type']} connections are not served")
        given = [value.decode("latin-1") for name, value in scope["headers"] if name == TOKEN]
        token = given[0].strip() if len(given) == 1 else ""
        caller = self._tokens.remembered(token) if token else None
        if token and caller is None:
            if wait := self._attempts.take(address(scope)):
                await too_many(wait)(scope, receive, send)
                return
            try:
                caller = await self._tokens.caller(token)
            except KeystoneUnreachable as error:
                log.error("%s", error)  # noqa: TRY400 (no more than that is known)
                await _refusal(503, "Service Unavailable", "The identity service cannot be reached.")(
                    scope, receive, send
                )
                return
        if caller is None:
            answer = _refusal(401, "Unauthorized", "The request you have made requires authentication.")
            answer.headers["WWW-Authenticate"] = f'Keystone uri="{self._told_uri}"'
            await answer(scope, receive, send)
            return
        state = {**scope.get("state", {}), "caller": caller}
        await self.app({**scope, "state": state}, receive, send)

    def _open(self, scope: Scope) -> bool:
        """Whether everybody may ask: judged by the path that will be routed, not by the one that was written."""
        _, path = below_mount(scope)
        if path and not path.startswith("/"):
            return False
        path = one_form(path)
        return path == "/" or (not self._webhooks and path.startswith("/v1/webhooks/"))


def _refusal(status: int, title: str, message: str) -> Response:
    body = json.dumps({"error": {"code": status, "title": title, "message": message}})
    return Response(body, status, media_type="application/json")
