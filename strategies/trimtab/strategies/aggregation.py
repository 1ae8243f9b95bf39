"""How samples become one value, as parameters of strategies: Watcher's object with its old name for hosts."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, field_validator


class Aggregation(BaseModel):
    """How samples become one value; `node` is the old name of `compute_node` and counts when it is not empty."""

    model_config = ConfigDict(extra="ignore", strict=True)

    instance: str = "mean"
    compute_node: str = "mean"
    node: str = ""

    @field_validator("instance", "compute_node", "node")
    @classmethod
    def _known(cls, given: str) -> str:
        if given not in {"", "mean", "min", "max", "count"}:
            raise ValueError(f"there is no aggregation {given!r}: use mean, min, max or count")
        return given

    def of_hosts(self) -> str:
        """What counts for hosts."""
        return self.node or self.compute_node
