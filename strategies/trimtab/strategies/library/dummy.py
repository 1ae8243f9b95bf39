"""The dummy strategy: three harmless actions that show that audits, plans and the applier work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from trimtab.platform.contracts import Context
from trimtab.platform.proposal import Act, Candidate
from trimtab.platform.snapshot import Need, Snapshot


class Parameters(BaseModel):
    """What an audit may set."""

    model_config = ConfigDict(extra="forbid", strict=True)

    para1: float = Field(3.2, ge=1.0, le=10.2, description="number parameter example")
    para2: str = Field("hello", description="string parameter example")


class Dummy:
    """Says hello, says `para2`, sleeps `para1` seconds; touches nothing."""

    name: ClassVar[str] = "dummy"
    display_name: ClassVar[str] = "Dummy strategy"
    goal: ClassVar[str] = "dummy"
    parameters: ClassVar[type[BaseModel]] = Parameters
    models: ClassVar[tuple[str, ...]] = ("compute",)

    def needs(self, parameters: Parameters) -> Sequence[Need]:  # noqa: ARG002 - the contract's signature
        """Nothing is measured."""
        return ()

    def grid(self) -> Sequence[Mapping[str, Any]]:
        """The defaults only."""
        return ({},)

    def propose(self, snapshot: Snapshot, parameters: Parameters, context: Context) -> Sequence[Candidate]:  # noqa: ARG002
        """One candidate of three actions, whatever the cloud looks like."""
        steps = (
            Act("nop", None, {"message": "hello World"}),
            Act("nop", None, {"message": parameters.para2}),
            Act("sleep", None, {"duration": parameters.para1}),
        )
        return (Candidate(steps, because="harmless actions that show that everything works", planner="weight"),)
