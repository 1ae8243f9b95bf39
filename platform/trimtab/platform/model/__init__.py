"""The cluster model: frozen columns, and the mutable placement overlay."""

from trimtab.platform.model.compute import (
    DISK,
    MEMORY,
    RESOURCES,
    STATES,
    VCPU,
    ClusterModel,
    GroupPolicy,
    InstanceState,
)
from trimtab.platform.model.parquet import read_model, write_model
from trimtab.platform.model.placement import Placement

__all__ = [
    "DISK",
    "MEMORY",
    "RESOURCES",
    "STATES",
    "VCPU",
    "ClusterModel",
    "GroupPolicy",
    "InstanceState",
    "Placement",
    "read_model",
    "write_model",
]
