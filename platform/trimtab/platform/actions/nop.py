"""`nop`: logs a message; its four flags let a test of the applier fail or skip any phase."""

from __future__ import annotations

import logging
from typing import ClassVar

from pydantic import BaseModel

from trimtab.platform.contracts import Tools
from trimtab.platform.errors import ActionFailed, ActionSkipped

log = logging.getLogger(__name__)


class Parameters(BaseModel, extra="forbid"):
    """Input parameters on the wire."""

    message: str | None
    skip_pre_condition: bool = False
    fail_pre_condition: bool = False
    fail_execute: bool = False
    fail_post_condition: bool = False


class Nop:
    """Handler of the action type `nop`."""

    action_type: ClassVar[str] = "nop"
    description: ClassVar[str] = "Logging a NOP message"
    schema: ClassVar[type[BaseModel]] = Parameters

    def __init__(self, tools: Tools) -> None:
        self.tools = tools

    async def pre_condition(self, wanted: Parameters) -> None:
        """Skip or fail if told so."""
        if wanted.skip_pre_condition:
            raise ActionSkipped("Skipped in pre_condition")
        if wanted.fail_pre_condition:
            raise ActionFailed("Failed in pre_condition")

    async def execute(self, wanted: Parameters, *, asked_at: float | None) -> None:  # noqa: ARG002 - the seam's shape
        """Log the message; again after an interruption."""
        log.info("nop: %s", wanted.message)
        if wanted.fail_execute:
            raise ActionFailed

    async def post_condition(self, wanted: Parameters) -> None:
        """Fail if told so."""
        if wanted.fail_post_condition:
            raise ActionFailed("Failed in post_condition")

    async def revert(self, wanted: Parameters) -> None:
        """Nothing was changed."""
        log.info("nop reverted: %s", wanted.message)

    async def abort(self, wanted: Parameters) -> bool:  # noqa: ARG002
        """Nothing runs that could not be stopped."""
        return True
