"""Web pages cannot use a browser on this machine to reach an API that asks nobody who it is."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from trimtab.serve.faults import fault

HARMLESS = frozenset({"GET", "HEAD", "OPTIONS"})  # pages of other origins cannot read what these answer


class NoForeignPages:
    """Refuses what only a page of somebody else's can have sent; programs send no `Origin`, and mean this machine.

    Args:
        app: what is behind it.
        origins: whose pages may call all the same, or `*`.
        by_name: whether a request must name this machine. A name with a dot that somebody else owns may lead here
            (DNS rebinding), and then a browser takes their page for ours.
    """

    def __init__(self, app: ASGIApp, origins: Collection[str], *, by_name: bool) -> None:
        self.app = app
        self._origins, self._by_name = frozenset(origins), by_name

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] == "http" and (why := self._foreign(scope)) is not None:
            await fault(403, why)(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def _foreign(self, scope: Scope) -> str | None:
        headers = {name: value.decode("latin-1") for name, value in scope["headers"] if name in {b"host", b"origin"}}
        host = headers.get(b"host", "")
        if self._by_name and not means_this_machine(host):
            return f"{host!r} is no name of this machine: ask for localhost, or set auth or trusted_proxies"
        origin = headers.get(b"origin")
        if origin is None or scope["method"] in HARMLESS or not self._origins.isdisjoint({origin, "*"}):
            return None
        if origin.partition("://")[2] == host:
            return None
        return f"pages of {origin!r} may not change anything here: cors.allowed_origin names those that may"


def means_this_machine(host: str) -> bool:
    """Whether a `Host` header is an address, localhost, or a name without a dot, which nobody else can own."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return bool(name) and ("." not in name or name.endswith(".localhost"))
    return True
