"""The HTTP application: routers, microversion headers, errors in Watcher's format, discovery, /metrics, /v1/cluster."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from typing import Any, Literal

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Gauge, generate_latest
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from trimtab.platform.errors import CloudError, Conflict, DatasourceError, InvalidInput, NotFound, TrimtabError
from trimtab.platform.records import Action, ActionPlan, Audit
from trimtab.platform.states import MACHINES
from trimtab.serve import action_plans, audit_templates, audits, catalogue, whatifs
from trimtab.serve.resources import Backend, Base, Wired
from trimtab.serve.wire import HIGHEST, LOWEST, Body, Version, VersionError, negotiate

log = logging.getLogger(__name__)

STATUS: tuple[tuple[type[TrimtabError], int], ...] = (
    (InvalidInput, 400),
    (NotFound, 404),
    (Conflict, 409),
    (CloudError, 503),
    (DatasourceError, 503),
    (TrimtabError, 500),
)
DESCRIPTION = (
    "Trimtab simulates and optimises OpenStack clouds. The resources under /v1 have the shapes of OpenStack Watcher's "
    "API; /v1/audits/{audit}/candidates, /v1/action_plans/{uuid}/effect and /explanation, /v1/whatifs, /v1/cluster and "
    "/metrics are Trimtab's own."
)

UNVERSIONED = frozenset({"docs", "metrics", "openapi.json", "redoc"})

router = APIRouter()


def create_app(backend: Backend) -> FastAPI:
    """The whole application over a backend; plain ASGI, to be served by Ray Serve or driven by a test client."""
    app = FastAPI(title="Trimtab", version=str(HIGHEST), description=DESCRIPTION, redirect_slashes=False)
    app.state.backend = backend
    for part in (router, catalogue.router, audit_templates.router, audits.router, action_plans.router, whatifs.router):
        app.include_router(part)
    app.add_middleware(Microversions)
    app.add_exception_handler(TrimtabError, _known_error)
    app.add_exception_handler(RequestValidationError, _bad_request)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _unknown_error)
    return app


class Microversions:
    """Negotiates the API version, merges slashes, drops a trailing one, and writes the version headers."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path = re.sub(r"/{2,}", "/", scope["path"])
        path = path.rstrip("/") if len(path) > 1 and not path.endswith("/detail/") else path
        if (first := path.split("/", 2)[1]) and first not in UNVERSIONED:
            path = f"/v1{path}" if first != "v1" else path  # bookmark links have no version
            path = path.removesuffix(".json")
        scope = {**scope, "path": path, "raw_path": path.encode()}
        header = next((v.decode("latin-1") for k, v in scope["headers"] if k == b"openstack-api-version"), None)
        try:
            version: Version | None = negotiate(header)
        except VersionError as error:
            answer = _plain(406, f"406 Not Acceptable\n\nThe resource could not be generated.\n\n {error}")
            await _with_headers(answer, None, error.announce)(scope, receive, send)
            return
        scope.setdefault("state", {})["version"] = version

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start" and path.startswith("/v1"):
                message["headers"] = [*message["headers"], *_headers(version)]
            await send(message)

        await self.app(scope, receive, with_headers)


def _headers(version: Version | None) -> list[tuple[bytes, bytes]]:
    headers = [
        (b"vary", b"OpenStack-API-Version"),
        (b"openstack-api-minimum-version", str(LOWEST).encode()),
        (b"openstack-api-maximum-version", str(HIGHEST).encode()),
    ]
    if version is not None:
        headers.append((b"openstack-api-version", f"infra-optim {version}".encode()))
    return headers


def _with_headers(answer: Response, version: Version | None, announce: bool) -> Response:
    if announce:
        answer.raw_headers.extend(_headers(version))
    return answer


def _error(status: int, faultstring: str) -> JSONResponse:
    fault = {"faultcode": "Client" if status < 500 else "Server", "faultstring": faultstring, "debuginfo": None}
    return JSONResponse({"error_message": json.dumps(fault)}, status)


def _plain(status: int, text: str) -> JSONResponse:
    return JSONResponse({"error_message": text}, status)


def _known_error(_: Request, error: Exception) -> Response:
    status = next(code for kind, code in STATUS if isinstance(error, kind))
    if status >= 500:
        log.error("%s: %s", type(error).__name__, error)
    return _error(status, str(error))


def _unknown_error(request: Request, error: Exception) -> Response:
    log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return _error(500, f"Internal error ({type(error).__name__}); the server's log has the details")


def _http_error(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    if status == 405:
        detail = f"405 Method Not Allowed\n\nThe method {request.method} is not allowed for this resource. \n\n "
    elif status == 404:
        detail = "404 Not Found\n\nThe resource could not be found.\n\n   "
    else:
        return _error(status, str(getattr(error, "detail", error)))
    return _plain(status, detail)


def _bad_request(_: Request, error: Exception) -> Response:
    faults = error.errors() if isinstance(error, RequestValidationError) else []
    return _error(400, _fault_text(faults[0]) if faults else str(error))


def _fault_text(fault: Mapping[str, Any]) -> str:
    place, *path = fault["loc"]
    name = ".".join(str(part) for part in path) or "body"
    kind = fault["type"]
    if place == "query" and kind == "extra_forbidden":
        return f'Unknown argument: "{name}"'
    if kind == "json_invalid":
        return "Request is not in valid JSON format"
    if kind == "extra_forbidden":
        return f"Unknown attribute for argument body: {name}"
    if kind == "missing":
        if not path:
            return 'Missing argument: "body"'
        return f"Invalid input for field/attribute {name}. Value: 'None'. Mandatory field missing."
    value = fault.get("input")
    return f"Invalid input for field/attribute {name}. Value: '{value}'. {fault['msg']}"


@router.get("/", tags=["discovery"])
async def root(base: Base) -> Body:
    """What this service is."""
    v1 = {
        "id": "v1",
        "status": "CURRENT",
        "min_version": str(LOWEST),
        "max_version": str(HIGHEST),
        "links": [{"href": f"{base}/v1/", "rel": "self"}],
    }
    return {"name": "Trimtab", "description": DESCRIPTION, "versions": [v1], "default_version": v1}


@router.get("/v1", tags=["discovery"])
async def v1(base: Base) -> Body:
    """The collections of the API."""
    names = (
        "audit_templates",
        "audits",
        "actions",
        "action_plans",
        "goals",
        "strategies",
        "scoring_engines",
        "whatifs",
    )
    return {
        "id": "v1",
        "media_types": [{"base": "application/json", "type": "application/vnd.openstack.watcher.v1+json"}],
        **{
            name: [
                {"href": f"{base}/v1/{name}/", "rel": "self"},
                {"href": f"{base}/{name}/", "rel": "bookmark"},
            ]
            for name in names
        },
        "links": [{"href": f"{base}/v1/", "rel": "self"}],
    }


@router.get("/v1/cluster", tags=["cluster"])
async def cluster(wired: Wired) -> Body:
    """Figures of the cluster as it was last collected: hosts in use, balance, power."""
    return dict(await wired.cluster())


@router.get("/v1/cluster/model/{table}", tags=["cluster"], response_class=Response)
async def model_table(table: Literal["nodes", "instances", "server_groups"], wired: Wired) -> Response:
    """One table of the newest cluster model as Parquet."""
    content = await wired.model_table(table)
    if content is None:
        raise NotFound("There is no model of the cloud yet: ask again in a moment")
    return Response(content, media_type="application/vnd.apache.parquet")


@router.get("/metrics", tags=["metrics"], response_class=Response)
async def metrics(wired: Wired) -> Response:
    """Prometheus metrics: records by state, and the cluster's figures."""
    registry = CollectorRegistry()
    for kind in (Audit, ActionPlan, Action):
        title = kind.kind
        gauge = Gauge(f"trimtab_{title}s", f"{title.replace('_', ' ')}s by state", ["state"], registry=registry)
        for state in MACHINES[title].states:
            if state != "DELETED":
                gauge.labels(state).set(await wired.store.count(kind, {"state": str(state)}))
    try:
        figures = await wired.cluster()
    except TrimtabError as error:  # monitoring must answer just then
        log.warning("metrics without the cluster's figures: %s", error)
        figures = {}
    for name, value in figures.items():
        if isinstance(value, int | float):
            Gauge(f"trimtab_cluster_{name}", f"cluster figure {name}", registry=registry).set(value)
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)
