"""From a candidate's ordered steps to a graph of actions: planners by the name a candidate asks for."""

from collections.abc import Mapping

from trimtab.platform.contracts import Planner
from trimtab.platform.planner.capacity import plan_capacity
from trimtab.platform.planner.node_resource_consolidation import plan_node_resource_consolidation
from trimtab.platform.planner.weight import plan_weight
from trimtab.platform.planner.workload_stabilization import plan_workload_stabilization

PLANNERS: Mapping[str, Planner] = {
    "capacity": plan_capacity,
    "node_resource_consolidation": plan_node_resource_consolidation,
    "weight": plan_weight,
    "workload_stabilization": plan_workload_stabilization,
}

__all__ = [
    "PLANNERS", "plan_capacity", "plan_node_resource_consolidation", "plan_weight", "plan_workload_stabilization",
]  # fmt: skip
