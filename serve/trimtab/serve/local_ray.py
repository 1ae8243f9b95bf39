"""Starting (or joining) Ray: loopback only, of modest size, without telemetry; imported before Ray itself."""

from __future__ import annotations

import logging
import os
from typing import Any

from trimtab.platform.errors import TrimtabError
from trimtab.platform.settings import RaySettings

# Ray reads these when it is imported. The first one, in spite of its name, makes a local Ray listen on 127.0.0.1 only
# (gcs, raylet, workers, agents), which also starts faster; a cluster that is joined is not touched by it.
DEFAULTS = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_SERVE_LOG_TO_STDERR": "0",
    # Looking ten times a second whether a replica is well costs more than all of our own looking.
    "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "1.0",
    # Half the work of a request: proxy and replica speak gRPC with each other, not through Ray's object store, and a
    # replica has one event loop and not three that take turns (nothing of ours blocks it).
    "RAY_SERVE_USE_GRPC_BY_DEFAULT": "1",
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
    "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",
    # On a busy machine the proxy takes longer to start, and to answer, than Serve waits by itself.
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "50",
    "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "30",
}
if "RAY_ADDRESS" not in os.environ and not os.environ.get("TRIMTAB_RAY__ADDRESS"):
    for _name, _value in DEFAULTS.items():
        os.environ.setdefault(_name, _value)

log = logging.getLogger(__name__)


def start(settings: RaySettings, namespace: str) -> str | None:
    """A local Ray of modest size, or the cluster that was named; the address of its dashboard, if it has one.

    Raises:
        TrimtabError: Ray did not start, twice.
    """
    import ray

    if ray.is_initialized():
        return None
    where: dict[str, Any] = {"address": settings.address}
    if settings.address is None:
        where = {
            "num_cpus": settings.num_cpus,
            "object_store_memory": settings.object_store_mb * 1024 * 1024,
            "include_dashboard": settings.dashboard,
            "dashboard_host": "127.0.0.1",
            "dashboard_port": settings.dashboard_port,
        }
        if settings.metrics_port is not None:
            where["_metrics_export_port"] = settings.metrics_port

    def initialised() -> str | None:
        context = ray.init(namespace=namespace, log_to_driver=False, logging_level=logging.ERROR, **where)
        return context.dashboard_url or None

    try:
        return initialised()
    except Exception as error:  # noqa: BLE001 (Ray raises many things)
        # Ray waits 30 s for its own node and gives up; on a loaded machine that is too short.
        log.warning("Ray did not start in time (%s); trying once more", error)
        stop: Any = ray.shutdown  # untyped
        stop()
    try:
        return initialised()
    except Exception as error:
        stop()
        raise TrimtabError(f"Ray did not start, is the machine very busy? Try again: {error}") from error
