"""Runs in the clients' environment: every order line is one call of python-watcherclient used as a library.

An order is a JSON line with `access` (arguments of `get_client`: how to reach the server), `manager`, `method`
and `arguments`; the answer has `result`, or `error` (the name of the exception) and `message`. An order with `do`
"tell" is answered with `methods` and `commands`, all that there are.
"""

import functools
import inspect
import json
import sys
from importlib.metadata import entry_points
from typing import Any

from watcherclient import client


@functools.cache
def client_for(access: str) -> Any:
    """A client, made once for each way of reaching a server."""
    return client.get_client("1", **json.loads(access))


def plain(result: Any) -> Any:
    """What a call returned, as JSON: resources become their bodies."""
    if isinstance(result, list):
        return [plain(one) for one in result]
    return result.to_dict() if hasattr(result, "to_dict") else result


def offered() -> list[str]:
    """All that the library offers, as `manager.method`."""
    known = vars(client.get_client("1", watcher_url="http://127.0.0.1:9", os_auth_token="any"))
    managers = {name: type(one) for name, one in known.items() if hasattr(one, "resource_class")}
    methods = {name: inspect.getmembers(kind, inspect.isfunction) for name, kind in managers.items()}
    return sorted(f"{name}.{method}" for name, found in methods.items() for method, _ in found if method[0] != "_")


def commands() -> list[str]:
    """The commands of `openstack` that come with the library, as entry points."""
    return sorted(one.name for one in entry_points(group="openstack.infra_optim.v1"))


def call(order: dict[str, Any]) -> dict[str, Any]:
    """One call."""
    if order.get("do") == "tell":
        return {"methods": offered(), "commands": commands()}
    try:
        manager = getattr(client_for(json.dumps(order["access"], sort_keys=True)), order["manager"])
        return {"result": plain(getattr(manager, order["method"])(**order["arguments"]))}
    except Exception as error:  # noqa: BLE001 (whatever a client can raise is the answer)
        return {"error": type(error).__name__, "message": str(error)}


if __name__ == "__main__":
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(call(json.loads(line))), flush=True)
