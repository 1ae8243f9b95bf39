"""Host maintenance: hosts are disabled and everything on them that can leave leaves.

Watcher's strategy of this name made sound. With a backup the instances are packed onto it one by one, the largest
first, within its room and the rules of zones and server groups; what does not fit goes where the cloud chooses,
as everything does without a backup, except whom rules bind that the cloud does not know: they get a named host. Whose
migration failed once in an earlier plan of the audit goes elsewhere, not to a backup and not where the cloud likes;
whose failed twice stays. Instances that Nova would refuse to migrate in their state, that are locked or excluded by
the audit's scope, stay. Whatever stays is named.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict, model_validator
from pydantic import Field as Option
from pydantic.config import JsonDict

from trimtab.platform.contracts import Context
from trimtab.platform.errors import StrategyError
from trimtab.platform.model import MEMORY, ClusterModel, InstanceState
from trimtab.platform.model.compute import Bools, Floats, Ints
from trimtab.platform.proposal import Act, Candidate, Migrate, Step
from trimtab.platform.rules import binding_rule, bound_by_rules
from trimtab.platform.snapshot import Need, Snapshot
from trimtab.strategies.feasibility import field_of, used_of
from trimtab.strategies.loads import MIGRATES_LIVE, note, note_instances, where_it_is
from trimtab.strategies.receiving import receive
from trimtab.strategies.services import switch
from trimtab.strategies.telling import by_move

REASON = "watcher_maintaining"

COLD = np.zeros(len(InstanceState), bool)  # states in which Nova takes a cold migration
COLD[[InstanceState.ACTIVE, InstanceState.STOPPED]] = True


def untyped(schema: JsonDict) -> None:
    """Do not say that parameters are an object: Watcher's schema does not."""
    schema.pop("type", None)


class Parameters(BaseModel):
    """What an audit may set."""

    model_config = ConfigDict(extra="forbid", strict=True, json_schema_extra=untyped)

    maintenance_node: str = Option(description="The name of the compute node which need maintenance")
    backup_node: str | None = Option(
        None, description="The name of the compute node which will backup the maintenance node."
    )
    disable_live_migration: bool = Option(
        False, description="Disable live migration in maintenance. Active instances will be cold migrated."
    )
    disable_cold_migration: bool = Option(
        False,
        description="Disable cold migration in maintenance. Without live migration, active instances will be stopped.",
    )
    more_maintenance_nodes: list[str] | None = Option(
        None, description="Further compute nodes for the same maintenance."
    )
    more_backup_nodes: list[str] | None = Option(None, description="Further compute nodes that take instances in.")

    @model_validator(mode="after")
    def _apart(self) -> Parameters:
        both = sorted(set(self.hosts()) & set(self.backups()))
        if both:
            raise ValueError(f"{both[0]} is to be maintained and cannot be its own backup: name another backup_node")
        return self

    def hosts(self) -> list[str]:
        """Everything that is to be maintained, each once."""
        return list(dict.fromkeys([self.maintenance_node, *(self.more_maintenance_nodes or ())]))

    def backups(self) -> list[str]:
        """Every backup, each once."""
        first = [] if self.backup_node is None else [self.backup_node]
        return list(dict.fromkeys([*first, *(self.more_backup_nodes or ())]))


class HostMaintenance:
    """Hosts made ready for maintenance."""

    name: ClassVar[str] = "host_maintenance"
    display_name: ClassVar[str] = "Host Maintenance Strategy"
    goal: ClassVar[str] = "cluster_maintaining"
    parameters: ClassVar[type[BaseModel]] = Parameters
    models: ClassVar[tuple[str, ...]] = ("compute",)

    def needs(self, parameters: Parameters) -> Sequence[Need]:  # noqa: ARG002 - the contract's signature
        """Nothing is measured."""
        return ()

    def grid(self) -> Sequence[Mapping[str, Any]]:
        """Nothing to try: nobody but the operator knows which host is meant."""
        return ()

    def propose(self, snapshot: Snapshot, parameters: Parameters, context: Context) -> Sequence[Candidate]:  # noqa: ARG002
        """One candidate; it has no step when everything is in maintenance already and empty.

        Raises:
            StrategyError: a host named is not there.
        """
        model = snapshot.model
        hosts = _rows(model, parameters.hosts(), "maintenance_node")
        backups = _rows(model, parameters.backups(), "backup_node")
        source = np.zeros(model.hosts, bool)
        source[hosts] = True
        there = where_it_is(source, model.host_of)
        reachable = model.movable & where_it_is(source & model.up, model.host_of)
        live, cold = not parameters.disable_live_migration, not parameters.disable_cold_migration
        active = model.state == InstanceState.ACTIVE
        failures = np.bincount(np.array(snapshot.failed_before, np.intp), minlength=model.instances)
        again = reachable & (failures < 2)
        runs = again & MIGRATES_LIVE[model.state] & live
        rests = again & COLD[model.state] & ~runs & cold
        stops = reachable & active & (not live and not cold)
        moves, opened = _packed(model, (runs | rests) & (failures == 0), backups)
        to_backup = np.zeros(model.instances, bool)
        to_backup[moves[:, 0]] = True
        elsewhere = np.flatnonzero((runs | rests) & ~to_backup)
        found = _elsewhere(model, moves, elsewhere, source, backups)
        named = bound_by_rules(model) | (failures > 0)  # the cloud's own choice knows no rules, or has failed
        lost = np.zeros(model.instances, bool)
        lost[elsewhere] = named[elsewhere] & (found[elsewhere] < 0)
        elsewhere = elsewhere[~lost[elsewhere]]
        stays = there & ~stops & (lost | ~(runs | rests))

        steps: list[Step] = [switch(model, int(host), enabled=True) for host in opened]
        steps += [
            switch(model, int(host), enabled=False, reason=REASON)
            for host in hosts
            if model.enabled[host] or model.disabled_reason[host] != REASON
        ]
        steps += [Migrate(instance, host, bool(runs[instance])) for instance, host in moves.tolist()]
        steps += [
            Migrate(instance, int(found[instance]) if named[instance] else -1, bool(runs[instance]))
            for instance in elsewhere.tolist()
        ]
        steps += [Act("stop", model.instance_id(int(row)), {}) for row in np.flatnonzero(stops)]
        gone = len(moves) + len(elsewhere)

        def told(instance: int, home: int, host: int) -> str:
            begin = f"{model.host_name(home)} is to be maintained: "
            if to_backup[instance]:
                return f"{begin}{model.host_name(host)} is the first of its backups that may take it"
            if not named[instance]:
                no = "no backup may take it" if len(backups) else "it has no backup"
                return f"{begin}{no}, and the cloud chooses"
            rule = binding_rule(model, instance)
            why = f"the cloud does not know its rule {rule.label}" if rule else "its migration failed before"
            left = model.host_name(host)
            return f"{begin}{why}; of the other hosts that may take it {left} has the most memory left"

        going = np.array([(s.instance, s.destination) for s in steps if isinstance(s, Migrate)], np.int32)
        down = source & ~model.up
        because = (
            f"{', '.join(parameters.hosts())}: {gone} of {int(there.sum())} instances migrate, "
            f"{int(stops.sum())} are stopped, {int(stays.sum())} stay"
        )
        if not steps:
            because = f"{', '.join(parameters.hosts())}: in maintenance already, and nothing on it can leave"
        return (
            Candidate(
                tuple(steps),
                because=because,
                indicators={
                    "instances_count": int(there.sum()),
                    "instance_migrations_count": gone,
                    "stopped_instances_count": int(stops.sum()),
                    "remaining_instances_count": int(stays.sum()),
                },
                reasons=by_move(model, going.reshape(-1, 2), told),
                notes=(
                    *note(
                        down, model.host_names, "{count} hosts are down: nothing can migrate off them, evacuate instead"
                    ),
                    *note(
                        np.isin(np.arange(model.hosts), backups) & ~model.up,
                        model.host_names,
                        "{count} backup hosts are down and take nothing in",
                    ),
                    *note_instances(
                        model,
                        np.isin(np.arange(model.instances), elsewhere if len(backups) else ()) & ~named,
                        "{count} instances do not fit on a backup: the cloud chooses where they go",
                    ),
                    *note_instances(
                        model,
                        np.isin(np.arange(model.instances), elsewhere) & ~named & (found < 0),
                        "{count} instances find no room on any host as far as the model knows: the cloud may refuse",
                    ),
                    *note_instances(
                        model,
                        (runs | rests) & (failures == 1) & ~lost,
                        "{count} instances failed to move in an earlier plan of this audit: "
                        "they are tried once more, to another named host",
                    ),
                    *note_instances(
                        model,
                        reachable & (failures > 1) & ~stops,
                        "{count} instances stay: their migration failed twice; migrate them cold "
                        "(disable_live_migration), or look at them",
                    ),
                    *note_instances(
                        model, lost, "{count} instances stay: no other host has room and is allowed by their rules"
                    ),
                    *note_instances(model, there & model.locked, "{count} instances stay: locked"),
                    *note_instances(
                        model, there & model.excluded & ~model.locked, "{count} instances stay: excluded by the scope"
                    ),
                    *note_instances(
                        model,
                        stays & again & ~lost,
                        "{count} instances stay: in their state they can neither migrate as allowed nor be stopped",
                    ),
                ),
            ),
        )


def _rows(model: ClusterModel, names: Sequence[str], parameter: str) -> Ints:
    rows = model.host_rows_by_name(names)
    for name, row in zip(names, rows.tolist(), strict=True):
        if row < 0:
            raise StrategyError(
                f"{parameter}: there is no compute node {name!r} in the audit's scope; give the name of one that is"
            )
    return rows


def _packed(model: ClusterModel, leaving: Bools, backups: Ints) -> tuple[Ints, Ints]:
    """Moves [K, 2] onto backups, the largest instance first, and the backups that must be enabled for them."""
    if not len(backups):
        return np.empty((0, 2), np.int32), np.empty(0, np.int32)
    rows = np.flatnonzero(leaving)
    queue = rows[np.lexsort((rows, -model.demand[rows, MEMORY]))].astype(np.int32)
    receives = np.zeros(model.hosts, bool)
    receives[backups] = model.up[backups]
    key = np.zeros(model.hosts)
    key[backups] = np.arange(len(backups))
    moves = _given(model, model.host_of.copy(), queue, receives, key)
    used = np.unique(moves[:, 1])
    return moves, used[~model.enabled[used]]


def _elsewhere(model: ClusterModel, moves: Ints, elsewhere: Any, source: Bools, backups: Ints) -> Ints:
    """A host, no backup, with room after the moves for each of `elsewhere`, -1 where there is none, [V]."""
    host_of = model.host_of.copy()
    host_of[moves[:, 0]] = moves[:, 1]
    receives = model.usable & ~source
    receives[backups] = False  # whom they may hold is there by now
    queue = elsewhere[np.lexsort((elsewhere, -model.demand[elsewhere, MEMORY]))].astype(np.int32)
    taken = model.used(host_of)[:, MEMORY]  # the host with the most memory left, as Nova weighs
    given = _given(model, host_of, queue, receives, taken - model.capacity[:, MEMORY], model.demand[:, MEMORY].copy())
    found = np.full(model.instances, -1, np.int32)
    found[given[:, 0]] = given[:, 1]
    return found


def _given(
    model: ClusterModel, host_of: Ints, queue: Ints, receives: Bools, key: Floats, adds: Floats | None = None
) -> Ints:
    field = field_of(model, model.capacity, model.demand)
    more = np.zeros(model.instances) if adds is None else adds
    one = np.zeros(len(queue), np.int32)
    return receive(field, host_of, used_of(field, host_of), receives, key, more, queue, one, len(queue), False)
