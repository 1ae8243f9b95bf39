"""`sleep`: lets wall time pass between other actions."""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel, Field

from trimtab.platform.contracts import Tools


class Parameters(BaseModel, extra="forbid"):
    """Input parameters on the wire; the fraction of a second is dropped."""

    duration: float = Field(ge=0, allow_inf_nan=False, description="seconds")


class Sleep:
    """Handler of the action type `sleep`. Interrupted, it sleeps again in full: never shorter than asked for."""

    action_type: ClassVar[str] = "sleep"
    description: ClassVar[str] = "Wait for a given interval in seconds."
    schema: ClassVar[type[BaseModel]] = Parameters

    def __init__(self, tools: Tools) -> None:
        self.tools = tools

    async def pre_condition(self, wanted: Parameters) -> None:
        """There is none."""

    async def execute(self, wanted: Parameters, *, asked_at: float | None) -> None:  # noqa: ARG002 - the seam's shape
        """Sleep by the wall's clock."""
        await self.tools.wall.sleep(int(wanted.duration))

    async def post_condition(self, wanted: Parameters) -> None:
        """There is none."""

    async def revert(self, wanted: Parameters) -> None:
        """Time is not given back."""

    async def abort(self, wanted: Parameters) -> bool:  # noqa: ARG002
        """A sleeper can always be woken."""
        return True
