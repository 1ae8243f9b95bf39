"""The notification bus of OpenStack: oslo.messaging's own transport and message format, on RabbitMQ."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from trimtab.platform.errors import InvalidInput
from trimtab.platform.notifications import Notification

EXCHANGE = "watcher"  # consumers of Watcher's notifications listen there


class Bus:
    """Hands notifications to a broker; raises when it does not take them, which oslo.messaging's Notifier hides."""

    def __init__(self, url: str, publisher_id: str, topics: Sequence[str] = ("notifications",)) -> None:
        """Connects at the first send. `url` as in oslo.messaging: rabbit://user:password@host:5672/vhost.

        Raises:
            InvalidInput: the extra is not installed, or the URL has no driver.
        """
        try:
            import oslo_messaging
            from oslo_config import cfg
        except ImportError as error:
            raise InvalidInput("notifications on a bus need oslo.messaging: pip install 'trimtab[amqp]'") from error
        self._publisher_id, self._topics = publisher_id, topics
        conf = cfg.ConfigOpts()
        conf([], default_config_files=[], default_config_dirs=[], project="trimtab")
        oslo_messaging.set_transport_defaults(EXCHANGE)
        try:
            self._transport: Any = oslo_messaging.get_notification_transport(conf, url=url)
        except Exception as error:
            # Its message may hold the password.
            raise InvalidInput(
                f"notifications_url is not understood ({type(error).__name__}): give one like rabbit://user:pass@host//"
            ) from error
        self._target = oslo_messaging.Target

    async def send(self, notifications: Sequence[Notification]) -> None:
        """See `publishing.Send`."""
        await asyncio.to_thread(self._send, notifications)

    def _send(self, notifications: Sequence[Notification]) -> None:
        for one in notifications:
            message = {
                "message_id": str(uuid4()),
                "publisher_id": self._publisher_id,
                "event_type": one.event_type,
                "priority": one.priority,
                "payload": one.payload,
                "timestamp": str(datetime.now(UTC).replace(tzinfo=None)),
            }
            for topic in self._topics:
                target = self._target(topic=f"{topic}.{one.priority.lower()}")
                # What the driver "messagingv2" does, without its `except` that logs and goes on.
                self._transport._send_notification(target, {}, message, version=2.0, retry=1)  # noqa: SLF001

    def close(self) -> None:
        """Let go of the connections."""
        self._transport.cleanup()
