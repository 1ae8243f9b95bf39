"""The catalogue as the API last asked for it: it changes when plug-ins are installed, and is asked for all the time."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

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
