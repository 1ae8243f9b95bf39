"""The actuator strategy: the actions an operator wrote down, in that order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue, field_validator
from pydantic.config import JsonDict

from trimtab.platform.contracts import Context
from trimtab.platform.proposal import Act, Candidate
from trimtab.platform.snapshot import Need, Snapshot

OBJECT: JsonDict = {"type": "object", "properties": {}, "additionalProperties": True}


class Action(BaseModel):
    """One action as on the wire; Watcher's schema lets other properties pass, so they pass here, without effect."""

    model_config = ConfigDict(extra="allow", strict=True)

    action_type: str
    resource_id: str | None = None
    input_parameters: dict[str, JsonValue] = Field(json_schema_extra=OBJECT)

    @field_validator("input_parameters")
    @classmethod
    def _id_has_its_own_place(cls, given: dict[str, JsonValue]) -> dict[str, JsonValue]:
        if "resource_id" in given:
            raise ValueError("resource_id is a reserved word here: write it beside input_parameters")
        return given


class Parameters(BaseModel):
    """What an audit must set."""

    model_config = ConfigDict(
        extra="forbid", strict=True, json_schema_extra={"$schema": "http://json-schema.org/draft-04/schema#"}
    )

    actions: list[Action]


class Actuator:
    """Looks at nothing and judges nothing: the applier's pre-conditions still do."""

    name: ClassVar[str] = "actuator"
    display_name: ClassVar[str] = "Actuator"
    goal: ClassVar[str] = "unclassified"
    parameters: ClassVar[type[BaseModel]] = Parameters
    models: ClassVar[tuple[str, ...]] = ("compute",)

    def needs(self, parameters: Parameters) -> Sequence[Need]:  # noqa: ARG002 - the contract's signature
        """Nothing is measured."""
        return ()

    def grid(self) -> Sequence[Mapping[str, Any]]:
        """Nothing to try: without actions there is no candidate."""
        return ()

    def propose(self, snapshot: Snapshot, parameters: Parameters, context: Context) -> Sequence[Candidate]:  # noqa: ARG002
        """One candidate: exactly the actions given."""
        steps = tuple(Act(a.action_type, a.resource_id, a.input_parameters) for a in parameters.actions)
        ids = [a.resource_id or "" for a in parameters.actions]
        rows = snapshot.model.instance_rows(ids)
        asked = {
            row: f"the audit's actions ask for it ({a.action_type})"
            for row, a in zip(rows.tolist(), parameters.actions, strict=True)
            if row >= 0
        }
        return (Candidate(steps, because="these actions were asked for", planner="weight", reasons=asked),)
