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


def covered(indicators: Mapping[str, float]) -> list[dict[str, Any]]:
    """Watcher's headlines of hardware maintenance: what the plan does of what is to be done, in per cent."""
    shares = (
        ("live_instance_migrate_ratio", "live_migrate_instance_count", "instances to be live migrated"),
        ("cold_instance_migrate_ratio", "cold_migrate_instance_count", "instances to be cold migrated"),
        ("volume_migrate_ratio", "volume_migrate_count", "volumes to be migrated"),
        ("volume_update_ratio", "volume_update_count", "attached volumes to be migrated"),
    )
    return [
        {
            "name": name,
            "description": f"Ratio of planned migrations to {what}.",
            "unit": "%",
            "value": share_pct(indicators.get(f"planned_{count}", 0), indicators.get(count, 0)),
        }
        for name, count, what in shares
    ]


MIGRATIONS = Indicator("instance_migrations_count", "The number of VM migrations to be performed.", COUNT)

# Indicators of goals that have none in Watcher are ours; like all, they are left out where a strategy says nothing.

AIRFLOW_OPTIMIZATION = Goal(
    "airflow_optimization",
    "Airflow Optimization",
    (
        Indicator("hosts_over_threshold_count", "The number of hosts whose airflow is too high.", COUNT),
        MIGRATIONS,
    ),
)

CLUSTER_MAINTAINING = Goal(
    "cluster_maintaining",
    "Cluster Maintaining",
    (
        Indicator("instances_count", "The number of instances on the hosts to be maintained.", COUNT),
        MIGRATIONS,
        Indicator("stopped_instances_count", "The number of instances to be stopped.", COUNT),
        Indicator("remaining_instances_count", "The number of instances that stay on the hosts.", COUNT),
    ),
)

DUMMY = Goal("dummy", "Dummy goal")

HARDWARE_MAINTENANCE = Goal(
    "hardware_maintenance",
    "Hardware Maintenance",
    (
        Indicator("live_migrate_instance_count", "The number of instances to be live migrated.", COUNT),
        Indicator("planned_live_migrate_instance_count", "The number of live migrations in the plan.", COUNT),
        Indicator("cold_migrate_instance_count", "The number of instances to be cold migrated.", COUNT),
        Indicator("planned_cold_migrate_instance_count", "The number of cold migrations in the plan.", COUNT),
        Indicator("volume_migrate_count", "The number of volumes to be migrated.", COUNT),
        Indicator("planned_volume_migrate_count", "The number of volume migrations in the plan.", COUNT),
        Indicator("volume_update_count", "The number of attached volumes to be migrated.", COUNT),
        Indicator("planned_volume_update_count", "The number of migrations of attached volumes in the plan.", COUNT),
    ),
    global_efficacy=covered,
)

NOISY_NEIGHBOR = Goal(
    "noisy_neighbor",
    "Noisy Neighbor",
    (
        Indicator("affected_hosts_count", "The number of hosts on which an instance suffers from others.", COUNT),
        MIGRATIONS,
    ),
)

SAVING_ENERGY = Goal(
    "saving_energy",
    "Saving Energy",
    (
        Indicator("hosts_powered_off_count", "The number of hosts to be powered off.", COUNT),
        Indicator("hosts_powered_on_count", "The number of hosts to be powered on.", COUNT),
    ),
)

THERMAL_OPTIMIZATION = Goal(
    "thermal_optimization",
    "Thermal Optimization",
    (Indicator("hot_hosts_count", "The number of hosts whose outlet is too hot.", COUNT), MIGRATIONS),
)

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
    weighed=True,
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
    weighed=True,
)

RULES_COMPLIANCE = Goal(
    "rules_compliance",
    "Rules Compliance",
    (
        Indicator("rules_broken_before", "The number of violated rules before the audit.", COUNT),
        Indicator("rules_broken_after", "The number of violated rules when the plan is done.", COUNT),
        MIGRATIONS,
        Indicator("instances_placed_count", "The number of instances on no host that are given one.", COUNT),
    ),
    ("rules_broken", "moves", "moved_gib", "duration_s"),
)
