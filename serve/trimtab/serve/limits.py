"""Limits of what callers may send: a size for each request, and a token bucket for each caller or address."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable

from fastapi.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from trimtab.serve.faults import fault

BODILESS = frozenset({"GET", "HEAD", "OPTIONS", "DELETE"})
MOST_KEYS = 10_000


class Buckets:
    """One token bucket for each key: `burst` requests at once, `rate` a second on average; rate 0 sets no limit.

    The keys that were seen longest ago are forgotten when there are too many: they begin anew with a full bucket.
    """

    def __init__(self, rate: float, burst: int, now: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._burst, self._now = rate, float(burst), now
        self._filled: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens, and when there were so many

    def take(self, key: str) -> float:
        """Take a token: 0, or the seconds until there is one."""
        if self._rate <= 0:
            return 0.0
        now = self._now()
        tokens, since = self._filled.pop(key, (self._burst, now))
        tokens = min(self._burst, tokens + (now - since) * self._rate)
        wait = 0.0 if tokens >= 1.0 else (1.0 - tokens) / self._rate
        self._filled[key] = (tokens if wait else tokens - 1.0, now)
        if len(self._filled) > MOST_KEYS:
            self._filled.popitem(last=False)
        return wait


def too_many(wait_s: float) -> Response:
    """The answer to who asks too often."""
    seconds = max(1, math.ceil(wait_s))
    answer = fault(429, f"Too many requests: ask again in {seconds} s")
    answer.headers["Retry-After"] = str(seconds)
    return answer


def address(scope: Scope) -> str:
    """Where a request comes from."""
    client = scope.get("client")
    return str(client[0]) if client else ""


class RateLimit:
    """Answers 429 to callers (or addresses, where nobody says who it is) that ask too often."""

    def __init__(self, app: ASGIApp, buckets: Buckets) -> None:
        self.app = app
        self._buckets = buckets

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] == "http":
            caller = scope.get("state", {}).get("caller")
            wait = self._buckets.take(f"address {address(scope)}" if caller is None else f"user {caller.user_id}")
            if wait:
                await too_many(wait)(scope, receive, send)
                return
        await self.app(scope, receive, send)


class SizeLimit:
    """Answers 413 to bodies that are too large, before more than `most` bytes of them were read.

    A body whose size is not announced is read here, and handed on when it has ended in time.
    """

    def __init__(self, app: ASGIApp, most: int) -> None:
        self.app = app
        self._most = most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        announced = headers.get(b"content-length", b"").decode("latin-1").strip()
        if announced:
            # The server reads no more than was announced, and refuses what is no number.
            if not announced.isdecimal() or int(announced) > self._most:
                await self._too_large()(scope, receive, send)
                return
        elif scope["method"] not in BODILESS or b"transfer-encoding" in headers:
            body = await self._read(receive)
            if body is None:
                await self._too_large()(scope, receive, send)
                return
            receive = _again(body, receive)
        await self.app(scope, receive, send)

    async def _read(self, receive: Receive) -> list[Message] | None:
        messages: list[Message] = []
        size = 0
        while True:
            message = await receive()
            messages.append(message)
            size += len(message.get("body", b""))
            if size > self._most:
                return None
            if message["type"] != "http.request" or not message.get("more_body", False):
                return messages

    def _too_large(self) -> Response:
        answer = fault(413, f"Request is too large: no more than {self._most} bytes (max_body_bytes) are read")
        answer.headers["Connection"] = "close"
        return answer


def _again(messages: list[Message], receive: Receive) -> Receive:
    waiting = iter(messages)

    async def receive_again() -> Message:
        for message in waiting:
            return message
        return await receive()

    return receive_again
