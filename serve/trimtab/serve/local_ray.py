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
    # On a busy machine the proxy takes longer to start, and to answer, than Serve waits by itself.
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "50",
    "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "30",
}
if "RAY_ADDRESS" not in os.environ and not os.environ.get("TRIMTAB_RAY__ADDRESS"):
    for _name, _value in DEFAULTS.items():
        os.environ.setdefault(_name, _value)

log = logging.getLogger(__name__)


def listen_where_the_node_is() -> None:
    """Make this replica of Serve listen at its node's own address, which is loopback in a local Ray.

    Replicas have a server for each other that believes whatever it is sent, and Serve opens it at all addresses of the
    machine: whoever reached it could run code here. To be called while the replica is made, before it listens.

    Raises:
        RuntimeError: this Serve opens it in another way.
    """
    from ray import util
    from ray.serve._private import replica

    place: Any = replica  # untyped
    node_address: Any = util.get_node_ip_address  # untyped
    listen = getattr(place, "add_port_to_grpc_server", None)
    if listen is None:
        raise RuntimeError("this version of Ray Serve is not known to listen at one address only")
    node = node_address()

    def at_the_node(server: Any, address: str) -> Any:
        return listen(server, address.replace("[::]", f"[{node}]" if ":" in node else node))

    place.add_port_to_grpc_server = at_the_node


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
