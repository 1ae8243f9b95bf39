"""Runs in the clients' environment: every order line is one call of python-watcherclient used as a library.

An order is a JSON line with `access` (arguments of `get_client`: how to reach the server), `manager`, `method`
and `arguments`; the answer has `result`, or `error` (the name of the exception) and `message`.
"""

import functools
import json
import sys
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


def call(order: dict[str, Any]) -> dict[str, Any]:
    """One call."""
    try:
        manager = getattr(client_for(json.dumps(order["access"], sort_keys=True)), order["manager"])
        return {"result": plain(getattr(manager, order["method"])(**order["arguments"]))}
    except Exception as error:  # noqa: BLE001 (whatever a client can raise is the answer)
        return {"error": type(error).__name__, "message": str(error)}


if __name__ == "__main__":
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(call(json.loads(line))), flush=True)
