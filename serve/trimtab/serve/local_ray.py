"""Starting or joining Ray: a local one on loopback, modest, without telemetry; imported before Ray itself."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import time
from pathlib import Path
from typing import Any

from trimtab.platform.errors import TrimtabError
from trimtab.platform.settings import RaySettings

# Ray reads these when it is imported. The first one, in spite of its name, makes a local Ray listen on 127.0.0.1 only
# (gcs, raylet, workers, agents), which also starts faster; a cluster that is joined gets none of these.
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
JOINED = ("RAY_ADDRESS", "TRIMTAB_RAY__ADDRESS")
# Processes that Ray started have this one, and what else is right for them.
if "RAY_RAYLET_PID" not in os.environ and not any(os.environ.get(name) for name in JOINED):
    for _name, _value in DEFAULTS.items():
        os.environ.setdefault(_name, _value)

THERE_S = 20.0  # how long a cluster that is to be joined may take until it can be reached
REMEDY = "a Ray with a token wants RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH in the environment of whoever joins it"

log = logging.getLogger(__name__)


def start(settings: RaySettings, namespace: str) -> str | None:
    """A local Ray of modest size, or the cluster that was named; the address of its dashboard, if it has one.

    Raises:
        TrimtabError: Ray did not start, twice; or the cluster cannot be joined.
    """
    import ray

    if ray.is_initialized():
        return None
    if settings.address is not None:
        return join(settings.address, namespace)
    make_token()
    where: dict[str, Any] = {
        "address": "local",  # whatever RAY_ADDRESS says
        "num_cpus": settings.num_cpus,
        "object_store_memory": settings.object_store_mb * 1024 * 1024,
        "include_dashboard": settings.dashboard,
        "dashboard_host": "127.0.0.1",
        "dashboard_port": settings.dashboard_port,
    }
    if settings.metrics_port is not None:
        where["_metrics_export_port"] = settings.metrics_port
    stop: Any = ray.shutdown  # untyped
    try:
        return _initialised(namespace, **where)
    except Exception as error:  # noqa: BLE001 (Ray raises many things)
        # Ray waits 30 s for its own node and gives up; on a loaded machine that is too short.
        log.warning("Ray did not start in time (%s); trying once more", error)
        stop()
    try:
        return _initialised(namespace, **where)
    except Exception as error:
        stop()
        raise TrimtabError(f"Ray did not start, is the machine very busy? Try again: {error}") from error


def join(address: str, namespace: str) -> str | None:
    """Join a cluster that runs; the address of its dashboard, if it has one.

    Raises:
        TrimtabError: it cannot be reached, or does not take us.
    """
    _reach(address)
    try:
        return _initialised(namespace, address=address)
    except Exception as error:
        import ray

        stop: Any = ray.shutdown  # untyped
        stop()
        raise TrimtabError(f"the Ray cluster at {address} cannot be joined ({REMEDY}): {error}") from error


def make_token() -> None:
    """Where Ray is to ask for a token and none is given, make one that only its owner can read; Ray's own are for all.

    Ray reads RAY_AUTH_TOKEN, then RAY_AUTH_TOKEN_PATH, then this file.
    """
    file = token_file()
    if os.environ.get("RAY_AUTH_MODE") != "token" or file is None or file.exists():
        return
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as made:
        made.write(secrets.token_hex(32))


def token_file() -> Path | None:
    """Where Ray looks for the token; None when the environment has the token itself."""
    if os.environ.get("RAY_AUTH_TOKEN"):
        return None
    given = os.environ.get("RAY_AUTH_TOKEN_PATH")
    return Path(given) if given else Path.home() / ".ray" / "auth_token"


def _initialised(namespace: str, **where: Any) -> str | None:
    import ray

    context = ray.init(namespace=namespace, log_to_driver=False, logging_level=logging.ERROR, **where)
    return context.dashboard_url or None


def _reach(address: str) -> None:
    """Wait a little until somebody listens there: Ray itself would try for many minutes.

    Raises:
        TrimtabError: nobody does.
    """
    from ray.util import get_node_ip_address

    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        return  # Ray finds it by itself, or says what is wrong
    node_address: Any = get_node_ip_address  # untyped
    # Ray takes loopback for the address that others see this machine at.
    where = str(node_address()) if host in {"localhost", "127.0.0.1", "::1", "[::1]"} else host.strip("[]")
    deadline = time.monotonic() + THERE_S
    while True:
        try:
            with socket.create_connection((where, int(port)), timeout=2.0):
                return
        except OSError as error:
            if time.monotonic() > deadline:
                seen = "" if where == host else f", which Ray looks for at {where}"
                raise TrimtabError(f"no Ray cluster answers at {address}{seen}: {error}") from error
            time.sleep(0.5)
