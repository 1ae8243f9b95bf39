"""The HTTP application: all routers over one backend, behind the transport rules, with errors in Watcher's format."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.routing import APIRoute

from trimtab.serve import (
    action_plans,
    actions,
    audit_templates,
    audits,
    catalogue,
    data_model,
    discovery,
    events,
    faults,
    monitoring,
    security,
    services,
    strategy_state,
    webhooks,
    whatifs,
)
from trimtab.serve.microversions import HIGHEST
from trimtab.serve.openapi import Application
from trimtab.serve.resources import Backend
from trimtab.serve.transport import Transport

PARTS = (
    discovery,
    catalogue,
    strategy_state,
    audit_templates,
    audits,
    action_plans,
    actions,
    services,
    data_model,
    webhooks,
    whatifs,
    events,
    monitoring,
)


def _name(route: APIRoute) -> str:
    """What OpenAPI calls an operation."""
    return route.name


def create_app(backend: Backend) -> FastAPI:
    """The whole application over a backend; plain ASGI, to be served by Ray Serve or driven by a test client."""
    app = Application(
        title="Trimtab",
        version=str(HIGHEST),
        description=discovery.DESCRIPTION,
        redirect_slashes=False,
        generate_unique_id_function=_name,
    )
    app.state.backend = backend
    for part in PARTS:
        app.include_router(part.router)
    app.add_middleware(Transport)
    faults.install(app)
    security.protect(app, backend.settings)
    return app
