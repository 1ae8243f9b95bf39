"""From a candidate's ordered steps to a graph of actions: planners by the name a candidate asks for."""

from collections.abc import Mapping

from trimtab.platform.contracts import Planner
from trimtab.platform.planner.capacity import plan_capacity
from trimtab.platform.planner.weight import plan_weight

PLANNERS: Mapping[str, Planner] = {"capacity": plan_capacity, "weight": plan_weight}

__all__ = ["PLANNERS", "plan_capacity", "plan_weight"]
