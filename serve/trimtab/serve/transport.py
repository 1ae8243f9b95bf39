"""What happens to every request before it is routed: its path, its microversion, who is shown deleted rows, OPTIONS."""

from __future__ import annotations

import re

from fastapi.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from trimtab.serve.faults import plain
from trimtab.serve.microversions import NAME, Version, VersionError, headers, negotiate

UNVERSIONED = frozenset({"docs", "metrics", "openapi.json", "redoc"})  # everything else is /v1, said or unsaid
SHOW_DELETED = b"x-show-deleted"


class Transport:
    """Puts paths into one form, negotiates the API's version and writes the version headers.

    Sets `state.version` and `state.show_deleted` of requests.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        mount, rest = below_mount(scope)
        path = one_form(rest)
        whole = f"{mount}{path}"
        given = dict(scope.get("state", {}))  # of this request alone
        scope = {**scope, "path": whole, "raw_path": whole.encode(errors="replace"), "state": given}
        given["show_deleted"] = any(name == SHOW_DELETED and value for name, value in scope["headers"])
        given["version"] = version = Version(1, 0)
        versioned = path == "/v1" or path.startswith("/v1/")
        if versioned:
            try:
                given["version"] = version = negotiate(_header(scope))
            except VersionError as error:
                answer: Response = plain(406, f"406 Not Acceptable\n\nThe resource could not be generated.\n\n {error}")
                answer.raw_headers.extend(headers(None) if error.announce else [])
                await answer(scope, receive, send)
                return

        async def with_headers(message: Message) -> None:
            if versioned and message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *headers(version)]
            await send(message)

        if scope["method"] == "OPTIONS":
            await Response(status_code=200)(scope, receive, with_headers)
            return
        await self.app(scope, receive, with_headers)


def below_mount(scope: Scope) -> tuple[str, str]:
    """The prefix we are mounted at (empty where the path is not below it) and the rest of the path, perhaps nothing."""
    path, mount = str(scope["path"]), str(scope.get("root_path", "")).rstrip("/")
    if mount and (path == mount or path.startswith(f"{mount}/")):
        return mount, path[len(mount) :]
    return "", path


def one_form(path: str) -> str:
    """A path with its version, without doubled slashes, `.json` and a slash at its end.

    Only `/detail/` keeps its slash: clients are told that there is no such thing.
    """
    path = re.sub(r"/{2,}", "/", f"/{path}")  # some ask for "*"
    path = path.removesuffix(".json") if path != "/openapi.json" else path
    first = path.split("/", 2)[1]
    if not first or first in UNVERSIONED:
        return path
    if first != "v1":
        path = f"/v1{path}"  # bookmark links have no version
    return path if path.endswith("/detail/") else path.rstrip("/")


def _header(scope: Scope) -> str:
    wanted = NAME.lower().encode()
    return ",".join(value.decode("latin-1") for name, value in scope["headers"] if name == wanted)
