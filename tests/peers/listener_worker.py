"""Runs in Watcher's environment: listens to a bus with oslo.messaging and reads payloads with Watcher's own classes.

Argument: the bus. An order is a JSON line with `seconds`, how long to wait for something to be heard; the answer has
`heard`: of every notification its envelope, the uuid and state in its payload, and a fault where Watcher's class does
not take the payload as it is.
"""

import json
import queue
import sys
from typing import Any

import oslo_messaging
from oslo_config import cfg
from oslo_versionedobjects import fields
from watcher.notifications import action, action_plan, audit, exception, goal, service, strategy
from watcher.notifications import base as notifications

CLASSES: dict[str, Any] = {
    name: one
    for module in (action, action_plan, audit, exception, goal, service, strategy)
    for name, one in vars(module).items()
    if isinstance(one, type) and issubclass(one, notifications.NotificationPayloadBase)
}
NEVER_FILLED = {"action_plan_uuid"}  # declared by Watcher, but left out of what it sends


def fault_of(payload: dict[str, Any]) -> str | None:
    """Why this is not what Watcher's class of that name would have sent, with all that is in it.

    The classes cannot be made of what they sent, as each wants the records that it was filled from; their fields can.
    """
    name, data = payload["watcher_object.name"], payload["watcher_object.data"]
    if name not in CLASSES:
        return f"Watcher has no {name}"
    kind = CLASSES[name]
    if (payload["watcher_object.version"], payload["watcher_object.namespace"]) != (kind.VERSION, "watcher"):
        return f"Watcher sends version {kind.VERSION} of {name}"
    if wrong := (set(data) ^ set(kind.fields)) - NEVER_FILLED:
        return f"{name} has other fields: {sorted(wrong)}"
    for field, value in data.items():
        wanted = kind.fields[field]
        if isinstance(wanted, fields.ObjectField) and value is not None:
            if wanted.objname != value["watcher_object.name"]:
                return f"{name}.{field} should be a {wanted.objname}"
            if (fault := fault_of(value)) is not None:
                return fault
            continue
        try:
            wanted.coerce(None, field, None if value is None else wanted.from_primitive(None, field, value))
        except (ValueError, TypeError) as error:
            return f"{name}.{field} = {value!r}: {error}"
    return None


class Endpoint:
    """Notes what comes, whatever its priority."""

    def __init__(self) -> None:
        self.heard: queue.Queue[dict[str, Any]] = queue.Queue()

    def info(self, _: Any, publisher_id: str, event_type: str, payload: dict[str, Any], metadata: Any) -> None:
        """One notification."""
        inner = payload["watcher_object.data"]
        fault = fault_of(payload)
        if set(metadata) != {"message_id", "timestamp"}:
            fault = f"metadata {sorted(metadata)}"
        one = {"publisher_id": publisher_id, "event_type": event_type, "uuid": inner.get("uuid")}
        self.heard.put({**one, "state": inner.get("state"), "fault": fault})

    warn = error = info


def main(url: str) -> None:
    """Listen until the input ends."""
    conf = cfg.ConfigOpts()
    conf([], project="listener", default_config_files=[], default_config_dirs=[])
    transport = oslo_messaging.get_notification_transport(conf, url=url)
    target, endpoint = oslo_messaging.Target(topic="notifications", exchange="watcher"), Endpoint()
    listener = oslo_messaging.get_notification_listener(transport, [target], [endpoint], executor="threading")
    listener.start()
    print("ready", flush=True)
    for line in sys.stdin:
        heard = []
        try:
            heard.append(endpoint.heard.get(timeout=json.loads(line)["seconds"]))
            while not endpoint.heard.empty():
                heard.append(endpoint.heard.get())
        except queue.Empty:
            pass
        print(json.dumps({"heard": heard}), flush=True)
    listener.stop()
    listener.wait()


if __name__ == "__main__":
    main(sys.argv[1])
