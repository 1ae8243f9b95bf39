"""Runs in Horizon's environment: every order line is one call of the dashboard plug-in's own API module.

An order is a JSON line with `url` and `token` (from which the request object is made as Horizon would after a login),
`function` (a path below one of PLACES) and `arguments`; the answer has `result`, or `error` (the name of the exception)
and `message`.
"""

import inspect
import json
import os
import sys
from types import SimpleNamespace
from typing import Any

import django

os.environ["DJANGO_SETTINGS_MODULE"] = "watcher_dashboard.tests.settings"
django.setup()

from watcher_dashboard import config  # noqa: E402 (Django comes first)
from watcher_dashboard.api import watcher  # noqa: E402
from watcher_dashboard.common import client  # noqa: E402


class Page:
    """What the plug-in's pages do with the functions of its API module that take no request."""

    @staticmethod
    def functions(request: Any) -> list[str]:  # noqa: ARG004 (called like the others)
        """All that the API module offers, as paths."""
        own = {name: one for name, one in vars(watcher).items() if getattr(one, "__module__", "") == watcher.__name__}
        paths = [name for name, one in own.items() if inspect.isfunction(one)]
        for name, kind in own.items():
            if inspect.isclass(kind):
                paths += [f"{name}.{each}" for each, one in vars(kind).items() if isinstance(one, classmethod)]
        return sorted(paths)

    @staticmethod
    def strategy_name(request: Any, strategy: str) -> str:
        """The name that a page shows for a strategy."""
        return str(watcher.get_strategy_display_name(watcher.Strategy.get(request, strategy)))

    @staticmethod
    def indicators(request: Any, plan: str) -> list[Any]:
        """The table of a plan's efficacy."""
        body = watcher.ActionPlan.get(request, plan)
        made = [watcher.EfficacyIndicator(one) for one in body.efficacy_indicators]
        return [[one.name, one.description, one.unit, one.value] for one in made]

    @staticmethod
    def policies(request: Any) -> dict[str, str]:  # noqa: ARG004
        """The policy files once the plug-in has put in its own."""
        watcher.insert_watcher_policy_file()
        return dict(config.get_policy_files())


PLACES = {"watcher": watcher, "client": client, "page": Page}


def request_of(url: str, token: str) -> Any:
    """The request of somebody who is logged in: a name, a token and a service catalogue."""
    endpoint = {"region": "RegionOne", "region_id": "RegionOne", "interface": "public", "url": url}
    catalog = [{"type": "infra-optim", "name": "watcher", "endpoints": [endpoint]}]
    user = SimpleNamespace(
        username="admin", token=SimpleNamespace(id=token), service_catalog=catalog, services_region="RegionOne"
    )
    return SimpleNamespace(user=user, META={}, session={}, is_ajax=lambda: False)


def plain(result: Any) -> Any:
    """What a function returned, as JSON: resources become their bodies."""
    if isinstance(result, list):
        return [plain(one) for one in result]
    return result.to_dict() if hasattr(result, "to_dict") else result


def call(order: dict[str, Any]) -> dict[str, Any]:
    """One call; functions that handle errors for a page are told not to, so that the error is seen."""
    place, *path = order["function"].split(".")
    try:
        function = PLACES[place]
        for name in path:
            function = getattr(function, name)
        quiet = {"_error_handle": False} if hasattr(function, "wrapped") else {}
        return {"result": plain(function(request_of(order["url"], order["token"]), **order["arguments"], **quiet))}
    except Exception as error:  # noqa: BLE001 (whatever the dashboard would raise is the answer)
        return {"error": type(error).__name__, "message": str(error)}


if __name__ == "__main__":
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(call(json.loads(line))), flush=True)
