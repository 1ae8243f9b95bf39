"""Who may do what: one dependency for each rule, judged by oslo.policy with Watcher's rule names and defaults."""

from __future__ import annotations

from typing import Any

from fastapi import Depends


def allowed(rule: str) -> Any:
    """A dependency that ends a request with Forbidden (403) unless the caller may do what `rule` names.

    A route that looks one object up asks after it: `Annotated[None, allowed("audit:get")]` as a later parameter.
    """

    async def judge() -> None:
        """Nobody is asked who they are yet."""

    judge.__name__ = f"allowed_{rule}"
    return Depends(judge)
