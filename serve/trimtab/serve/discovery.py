"""GET / and /v1: which versions and collections there are, in the form clients and dashboards look for them."""

from __future__ import annotations

from fastapi import APIRouter

from trimtab.serve.arguments import Route
from trimtab.serve.microversions import HIGHEST, LOWEST, shown
from trimtab.serve.resources import Asked, Mounted
from trimtab.serve.wire import Body

DESCRIPTION = (
    "Trimtab simulates and optimises OpenStack clouds. The resources under /v1 have the shapes of OpenStack Watcher's "
    "API; /v1/audits/{audit}/candidates, /v1/action_plans/{uuid}/effect and /explanation, /v1/whatifs, /v1/cluster and "
    "/metrics are Trimtab's own."
)
NAME = "OpenStack Watcher API"  # what this is to its clients
# Goals and strategies are not among them: Watcher never listed those.
COLLECTIONS = (
    "audit_templates",
    "audits",
    "data_model",
    "actions",
    "action_plans",
    "scoring_engines",
    "services",
    "webhooks",
    "whatifs",
)
DESCRIBED_BY = "http://docs.openstack.org/developer/watcher/dev/api-spec-v1.html"

router = APIRouter(tags=["discovery"], route_class=Route)


@router.get("/")
async def root(base: Mounted) -> Body:
    """What this service is."""
    v1 = {
        "id": "v1",
        "status": "CURRENT",
        "max_version": str(HIGHEST),
        "min_version": str(LOWEST),
        "links": [{"href": f"{base}/v1/", "rel": "self"}],
    }
    return {"name": NAME, "description": DESCRIPTION, "versions": [v1], "default_version": v1}


@router.get("/v1")
async def collections(base: Mounted, asked: Asked) -> Body:
    """The collections of the API."""
    listed = {
        name: [{"href": f"{base}/v1/{name}/", "rel": "self"}, {"href": f"{base}/{name}/", "rel": "bookmark"}]
        for name in COLLECTIONS
    }
    return {
        "id": "v1",
        "media_types": [{"base": "application/json", "type": "application/vnd.openstack.watcher.v1+json"}],
        **shown("v1", listed, asked),
        "links": [
            {"href": f"{base}/v1/", "rel": "self"},
            {"href": DESCRIBED_BY, "rel": "describedby", "type": "text/html"},
        ],
    }
