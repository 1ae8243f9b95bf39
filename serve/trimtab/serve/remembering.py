"""What the API remembers: the catalogue, which hardly ever changes, and pages of lists as it last wrote them."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Any

from pydantic_core import to_json

from trimtab.platform.records import Goal, ScoringEngine, Strategy

CATALOGUE = frozenset({Goal, ScoringEngine, Strategy})
QUESTIONS = frozenset({"find", "get", "list", "view", "view_one"})
MOST = 1_000

Call = Callable[[str, tuple[Any, ...], dict[str, Any]], Awaitable[Any]]


def remembering(call: Call, keep_s: float = 1.0, now: Callable[[], float] = time.monotonic) -> Call:
    """How to ask a store, whose answers about the catalogue are used again for `keep_s` seconds; errors never are."""
    known: dict[str, tuple[float, Any]] = {}

    async def ask(method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if method not in QUESTIONS or args[0] not in CATALOGUE:
            return await call(method, args, kwargs)
        key = repr((method, args, kwargs))
        at, answer = known.get(key, (0.0, None))
        if key not in known or now() - at >= keep_s:
            answer = await call(method, args, kwargs)
            if len(known) >= MOST:
                known.clear()
            known[key] = (now(), answer)
        return answer

    return ask


class Written:
    """Answers as JSON, each with what it was made of: asked for again with the very same, it is not made again."""

    def __init__(self, most: int = 256) -> None:
        self._most = most
        self._known: OrderedDict[tuple[int, Hashable], tuple[object, bytes]] = OrderedDict()

    def json(self, made_of: object, asked: Hashable, make: Callable[[], Any]) -> bytes:
        """The answer that `make` makes of something and of what was asked; `made_of` never changes."""
        key = id(made_of), asked
        known = self._known.get(key)
        if known is None or known[0] is not made_of:
            known = self._known[key] = (made_of, to_json(make()))
            if len(self._known) > self._most:
                self._known.popitem(last=False)
        return known[1]
