"""/v1/cluster and /metrics: figures of the cloud and of Trimtab itself."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from typing import Literal

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Gauge, generate_latest

from trimtab.platform import liveness
from trimtab.platform.errors import NotFound, TrimtabError
from trimtab.platform.records import Action, ActionPlan, Audit, Service
from trimtab.platform.states import MACHINES
from trimtab.serve.policy import allowed
from trimtab.serve.resources import Wired
from trimtab.serve.wire import Body

log = logging.getLogger(__name__)

router = APIRouter()


@router.get("/v1/cluster", tags=["cluster"], dependencies=[allowed("cluster:get")])
async def cluster(wired: Wired) -> Body:
    """Figures of the cluster as it was last collected: hosts in use, balance, power."""
    return dict(await wired.cluster())


@router.get(
    "/v1/cluster/model/{table}", tags=["cluster"], response_class=Response, dependencies=[allowed("cluster:model")]
)
async def model_table(table: Literal["nodes", "instances", "server_groups"], wired: Wired) -> Response:
    """One table of the newest cluster model as Parquet."""
    content = await wired.model_table(table)
    if content is None:
        raise NotFound("There is no model of the cloud yet: ask again in a moment")
    return Response(content, media_type="application/vnd.apache.parquet")


@router.get("/metrics", tags=["metrics"], response_class=Response, dependencies=[allowed("metrics:get")])
async def metrics(wired: Wired) -> Response:
    """Prometheus metrics: records by state, which engines and appliers are up, and the cluster's figures."""
    registry = CollectorRegistry()
    for kind in (Audit, ActionPlan, Action):
        title = kind.kind
        gauge = Gauge(f"trimtab_{title}s", f"{title.replace('_', ' ')}s by state", ["state"], registry=registry)
        for state in MACHINES[title].states:
            if state != "DELETED":
                gauge.labels(state).set(await wired.store.count(kind, {"state": str(state)}))
    now, down_after = datetime.now(UTC), timedelta(seconds=wired.settings.service_down_time_s)
    up = Gauge("trimtab_service_up", "1 while a part gives signs of life", ["name", "host"], registry=registry)
    for service in await wired.store.list(Service):
        up.labels(service.name, service.host).set(liveness.status(service, now, down_after) == liveness.ACTIVE)
    try:
        figures = await wired.cluster()
    except TrimtabError as error:  # monitoring must answer just then
        log.warning("metrics without the cluster's figures: %s", error)
        figures = {}
    if figures:
        stale = Gauge("trimtab_cluster_stale", "1 when the last collection failed", registry=registry)
        stale.set(figures.get("stale") is not None)
    for name, value in figures.items():
        if isinstance(value, int | float):
            Gauge(f"trimtab_cluster_{name}", f"cluster figure {name}", registry=registry).set(value)
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)
