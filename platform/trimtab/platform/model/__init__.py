"""The cluster models (compute, storage, baremetal): frozen columns, and the mutable placement overlay."""

from trimtab.platform.model.baremetal import BaremetalModel
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
from trimtab.platform.model.parquet import read_baremetal, read_model, read_storage, write_model
from trimtab.platform.model.placement import Placement
from trimtab.platform.model.storage import StorageModel

__all__ = [
    "DISK",
    "MEMORY",
    "RESOURCES",
    "STATES",
    "VCPU",
    "BaremetalModel",
    "ClusterModel",
    "GroupPolicy",
    "InstanceState",
    "Placement",
    "StorageModel",
    "read_baremetal",
    "read_model",
    "read_storage",
    "write_model",
]
