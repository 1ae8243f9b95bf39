"""What the stock command lines print: column labels and the field of the API's body that each one shows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

Columns = Mapping[str, str]

GOAL: Columns = {"UUID": "uuid", "Name": "name", "Display name": "display_name"}
GOAL_FULL: Columns = {**GOAL, "Efficacy specification": "efficacy_specification"}
STRATEGY: Columns = {**GOAL, "Goal": "goal_name"}
STRATEGY_FULL: Columns = {**STRATEGY, "Parameters spec": "parameters_spec"}
STRATEGY_STATE: Columns = {"Type": "type", "State": "state", "Mandatory": "mandatory", "Comment": "comment"}
TEMPLATE: Columns = {"UUID": "uuid", "Name": "name", "Goal": "goal_name", "Strategy": "strategy_name"}
TIMES: Columns = {"Created At": "created_at", "Updated At": "updated_at", "Deleted At": "deleted_at"}
TEMPLATE_FULL: Columns = {
    "UUID": "uuid",
    **TIMES,
    "Description": "description",
    "Name": "name",
    "Goal": "goal_name",
    "Strategy": "strategy_name",
    "Audit Scope": "scope",
    "Default Parameters": "default_parameters",
}
AUDIT: Columns = {
    "UUID": "uuid",
    "Name": "name",
    "Audit Type": "audit_type",
    "State": "state",
    "Goal": "goal_name",
    "Strategy": "strategy_name",
    "Auto Trigger": "auto_trigger",
}
PLAN: Columns = {
    "UUID": "uuid",
    "Audit": "audit_uuid",
    "State": "state",
    "Updated At": "updated_at",
    "Global efficacy": "global_efficacy",
}
ACTION: Columns = {
    "UUID": "uuid",
    "Parents": "parents",
    "State": "state",
    "Action Plan": "action_plan_uuid",
    "Action": "action_type",
}
SCORING: Columns = {"UUID": "uuid", "Name": "name", "Description": "description"}
SCORING_FULL: Columns = {**SCORING, "Metainfo": "metainfo"}
SERVICE: Columns = {"ID": "id", "Name": "name", "Host": "host", "Status": "status"}
MODEL: Columns = {
    "Server UUID": "server_uuid",
    "Server Name": "server_name",
    "Server State": "server_state",
    "Node UUID": "node_uuid",
    "Node Host Name": "node_hostname",
}
MODEL_FULL: Columns = {
    "Server_UUID": "server_uuid",
    "Server Name": "server_name",
    "Server Vcpus": "server_vcpus",
    "Server Memory": "server_memory",
    "Server Disk": "server_disk",
    "Server State": "server_state",
    "Node UUID": "node_uuid",
    "Node Host Name": "node_hostname",
    "Node Vcpus": "node_vcpus",
    "Node Vcpu Ratio": "node_vcpu_ratio",
    "Node Memory": "node_memory",
    "Node Memory Ratio": "node_memory_ratio",
    "Node Disk": "node_disk",
    "Node Disk Ratio": "node_disk_ratio",
    "Node State": "node_state",
}


def audit_full(minor: int) -> Columns:
    """Columns of `audit show` and `audit list --detail`: the client leaves out what a microversion lacks."""
    columns = {"UUID": "uuid", "Name": "name", **TIMES, "State": "state", "Audit Type": "audit_type"}
    columns |= {"Parameters": "parameters", "Interval": "interval", "Goal": "goal_name", "Strategy": "strategy_name"}
    columns |= {"Audit Scope": "scope", "Auto Trigger": "auto_trigger", "Next Run Time": "next_run_time"}
    columns |= {"Hostname": "hostname"}
    if minor >= 1:
        columns |= {"Start Time": "start_time", "End Time": "end_time"}
    if minor >= 2:
        columns |= {"Force": "force"}
    return columns | _status(minor)


def plan_full(minor: int) -> Columns:
    """Columns of `actionplan show` and its like."""
    columns = {"UUID": "uuid", **TIMES, "Audit": "audit_uuid", "Strategy": "strategy_name", "State": "state"}
    columns |= {"Efficacy indicators": "efficacy_indicators", "Global efficacy": "global_efficacy"}
    return columns | {"Hostname": "hostname"} | _status(minor)


def action_full(minor: int) -> Columns:
    """Columns of `action show` and its like."""
    columns = {"UUID": "uuid", **TIMES, "Parents": "parents", "State": "state", "Action Plan": "action_plan_uuid"}
    columns |= {"Action": "action_type", "Parameters": "input_parameters", "Description": "description"}
    return columns | _status(minor)


def _status(minor: int) -> dict[str, str]:
    return {"Status Message": "status_message"} if minor >= 5 else {}


def shown(body: Mapping[str, Any], columns: Columns) -> dict[str, Any]:
    """The row that the client makes of a body: an absent field is an empty text."""
    return {label: body.get(field, "") for label, field in columns.items()}


def strategy_shown(body: Mapping[str, Any]) -> dict[str, Any]:
    """`strategy show` prints the properties of the parameters' schema as one text."""
    properties = body["parameters_spec"].get("properties")
    return shown({**body, "parameters_spec": json.dumps(properties, indent=2) if properties else {}}, STRATEGY_FULL)


def state_shown(requirement: Mapping[str, Any]) -> dict[str, Any]:
    """`strategy state` prints lists as one text."""
    state = requirement["state"]
    state = json.dumps(state, indent=2) if isinstance(state, list) else state
    return shown({**requirement, "state": state}, STRATEGY_STATE)


def audit_shown(body: Mapping[str, Any], columns: Columns) -> dict[str, Any]:
    """`audit show`, `list` and `create` call a strategy that was not chosen yet `auto`."""
    return shown({**body, "strategy_name": "auto" if body["strategy_name"] is None else body["strategy_name"]}, columns)
