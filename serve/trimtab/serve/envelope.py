"""What surrounds every request: its id, and what proxies in front of us say of it."""

from __future__ import annotations

import ipaddress
import logging
import re
import time
import uuid
from collections.abc import Mapping, Sequence
from contextvars import ContextVar

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from trimtab.platform.settings import Network
from trimtab.serve.limits import address

log = logging.getLogger(__name__)

request_id: ContextVar[str] = ContextVar("request_id", default="-")
GLOBAL = b"x-openstack-request-id"
_ID = re.compile(r"req-[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_HOST = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?")
_PREFIX = re.compile(r"(?:/[\w.~-]+)*/?")


class RequestIds:
    """Gives every request an id, answers with it in `x-openstack-request-id`, and logs what was asked.

    Sets `state.request_id`, and `state.global_request_id` where the caller gave one of its own in the same header.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        ident = f"req-{uuid.uuid4()}"
        given = next((v.decode("latin-1") for k, v in scope["headers"] if k == GLOBAL), "")
        wider = given if _ID.fullmatch(given) else None
        state = {**scope.get("state", {}), "request_id": ident, "global_request_id": wider}
        status, began = 0, time.perf_counter()

        async def with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (GLOBAL, ident.encode())]
            await send(message)

        token = request_id.set(ident)
        try:
            await self.app({**scope, "state": state}, receive, with_id)
        finally:
            request_id.reset(token)
            took_ms = 1000.0 * (time.perf_counter() - began)
            log.info(
                "%s (global %s) %s %r -> %d in %.1f ms",
                ident,
                wider or "-",
                scope["method"],
                scope["path"],
                status,
                took_ms,
            )


class ProxyHeaders:
    """Believes X-Forwarded-For, -Proto, -Host, -Port and -Prefix of proxies that are trusted, and nobody else's.

    Of several values the last is meant: the one that our own proxy added.
    """

    def __init__(self, app: ASGIApp, trusted: Sequence[Network]) -> None:
        self.app = app
        self._trusted = trusted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] == "http" and self._trusts(address(scope)):
            scope = self._as_told(scope)
        await self.app(scope, receive, send)

    def _trusts(self, text: str) -> bool:
        try:
            one = ipaddress.ip_address(text)
        except ValueError:
            return False
        return any(one in network for network in self._trusted)

    def _as_told(self, scope: Scope) -> Scope:
        told = {k: v.decode("latin-1") for k, v in scope["headers"] if k.startswith(b"x-forwarded-")}
        changed = dict(scope)
        # From the right: the first that no proxy of ours has is the caller.
        for hop in reversed([one.strip() for one in told.get(b"x-forwarded-for", "").split(",")]):
            try:
                changed["client"] = (str(ipaddress.ip_address(hop)), 0)
            except ValueError:
                break
            if not self._trusts(hop):
                break
        if (scheme := _last(told, b"x-forwarded-proto").lower()) in {"http", "https"}:
            changed["scheme"] = scheme
        host, port = _last(told, b"x-forwarded-host"), _last(told, b"x-forwarded-port")
        if _HOST.fullmatch(host):
            host += (
                f":{port}" if port.isdecimal() and not re.search(r":\d+$", host) and not _usual(port, changed) else ""
            )
            changed["headers"] = [(k, v) for k, v in scope["headers"] if k != b"host"] + [(b"host", host.encode())]
        prefix = _last(told, b"x-forwarded-prefix")
        if prefix and _PREFIX.fullmatch(prefix):
            changed["root_path"] = prefix.rstrip("/") + scope.get("root_path", "")
        return changed


def _last(told: Mapping[bytes, str], name: bytes) -> str:
    return told.get(name, "").rpartition(",")[2].strip()


def _usual(port: str, scope: Scope) -> bool:
    return port == {"http": "80", "https": "443"}.get(scope["scheme"])
