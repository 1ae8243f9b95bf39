"""Hearing Nova's notifications on RabbitMQ, through oslo.messaging, and telling the event loop of them."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from trimtab.platform.errors import InvalidInput
from trimtab.platform.openstack.moments import seconds_of
from trimtab.platform.openstack.updates import TOLD

log = logging.getLogger(__name__)

Hear = Callable[[str, Mapping[str, Any], float], None]
EXCHANGES: Final = ("nova", "openstack")


class Listener:
    """Listens from `start` on until `stop`; a broker that is gone is waited for by oslo.messaging itself."""

    def __init__(self, url: str, topics: Sequence[str], pool: str = "") -> None:
        """Nothing is connected yet.

        Args:
            url: of the broker, as in oslo.messaging: rabbit://user:password@host:5672/vhost.
            topics: `topic`, or `exchange.topic` with one of the exchanges `nova` and `openstack`, as Watcher has it:
                `nova.versioned_notifications` is the topic `versioned_notifications` on the exchange `nova`.
            pool: where others listen to the same topic, a name of our own, so that each hears everything.

        Raises:
            InvalidInput: the extra is not installed, or the URL has no driver.
        """
        try:
            import oslo_messaging
            from oslo_config import cfg
        except ImportError as error:
            raise InvalidInput(
                "hearing Nova's notifications needs oslo.messaging: pip install 'trimtab[amqp]'"
            ) from error
        conf = cfg.ConfigOpts()
        conf([], default_config_files=[], default_config_dirs=[], project="trimtab")
        try:
            self._transport: Any = oslo_messaging.get_notification_transport(conf, url=url)
        except Exception as error:
            # Its message may hold the password.
            raise InvalidInput(
                "openstack.notifications_url is not understood "
                f"({type(error).__name__}): give one like rabbit://user:pass@host//"
            ) from error
        self._targets = [_target(oslo_messaging.Target, topic) for topic in topics]
        self._messaging, self._pool = oslo_messaging, pool
        self._server: Any = None

    def start(self, loop: asyncio.AbstractEventLoop, hear: Hear) -> None:
        """Listen; `hear` is called in the loop with all that may change the model: type, payload, and when it was told.

        The last is in seconds since the epoch, inf when the message does not say.
        """

        class Endpoint:
            """What oslo.messaging calls, in a thread of its own, by a message's priority."""

            def info(self, _context: Any, _publisher: str, event_type: str, payload: Any, metadata: Any) -> None:
                if event_type in TOLD and isinstance(payload, Mapping):
                    told_at = seconds_of(metadata.get("timestamp"), math.inf)
                    loop.call_soon_threadsafe(hear, event_type, payload, told_at)

        self._server = self._messaging.get_notification_listener(
            self._transport, self._targets, [Endpoint()], executor="threading", pool=self._pool or None
        )
        self._server.start()

    def stop(self) -> None:
        """Hear no more."""
        if self._server is not None:
            self._server.stop()
            self._server.wait()
            self._server = None
        self._transport.cleanup()


def _target(target: Any, topic: str) -> Any:
    exchange, dot, rest = topic.partition(".")
    if dot and exchange in EXCHANGES:
        return target(topic=rest, exchange=exchange)
    return target(topic=topic)
