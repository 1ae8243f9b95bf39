"""Goals: what an audit may want, its efficacy indicators, and which plan of several is the better one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trimtab.platform.contracts import Goal, Indicator

COUNT = '{"type": "integer", "minimum": 0}'
NUMBER = '{"type": "number", "minimum": 0}'


def share_pct(part: float, whole: float) -> float:
    """`part` of `whole` in per cent; 0 of nothing is 0."""
    return part / whole * 100 if whole else 0.0


def released_nodes(indicators: Mapping[str, float]) -> list[dict[str, Any]]:
    """Watcher's headline of server consolidation: released hosts in per cent of the enabled ones."""
    value = share_pct(indicators.get("released_compute_nodes_count", 0), indicators.get("compute_nodes_count", 0))
    return [
        {
            "name": "released_nodes_ratio",
            "description": "Ratio of released compute nodes divided by the total number of enabled compute nodes.",
            "unit": "%",
            "value": value,
        }
    ]


def migrated_instances(indicators: Mapping[str, float]) -> list[dict[str, Any]]:
    """Watcher's headline of workload balancing: migrated instances in per cent of all (its name says count)."""
    value = share_pct(indicators.get("instance_migrations_count", 0), indicators.get("instances_count", 0))
    return [
        {
            "name": "live_migrations_count",
            "description": "Ratio of migrated virtual machines to audited virtual machines",
            "unit": "%",
            "value": value,
        }
    ]


MIGRATIONS = Indicator("instance_migrations_count", "The number of VM migrations to be performed.", COUNT)

DUMMY = Goal("dummy", "Dummy goal")

UNCLASSIFIED = Goal("unclassified", "Unclassified")

SERVER_CONSOLIDATION = Goal(
    "server_consolidation",
    "Server Consolidation",
    (
        Indicator("compute_nodes_count", "The total number of enabled compute nodes.", COUNT),
        Indicator("released_compute_nodes_count", "The number of compute nodes to be released.", COUNT),
        MIGRATIONS,
    ),
    ("rules_broken", "slatah", "hosts_in_use", "overload_min_after", "energy_kwh", "moved_gib", "duration_s"),
    released_nodes,
)

WORKLOAD_BALANCING = Goal(
    "workload_balancing",
    "Workload Balancing",
    (
        MIGRATIONS,
        Indicator("instances_count", "The total number of audited instances in strategy.", COUNT),
        Indicator("standard_deviation_after_audit", "The value of resulted standard deviation.", NUMBER),
        Indicator("standard_deviation_before_audit", "The value of original standard deviation.", NUMBER),
    ),
    ("rules_broken", "slatah", "cpu_sd_pp", "overload_min_after", "moved_gib", "duration_s"),
    migrated_instances,
)
