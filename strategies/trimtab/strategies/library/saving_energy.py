"""Saving energy: switch off hosts that hold nothing, but keep so many of them ready.

Watcher's strategy of this name made sound. Of the metal nodes that carry a compute host, those whose host holds an
instance are in use; the others are free, and on or off. As many free ones as needed stay on,

    needed = floor(max(in use * free_used_percent / 100, min_free_hosts_num)),

and the rest is switched off, or missing ones are switched on. Only a host that may take instances in is ready. Which
ones is the same in every run: off go the disabled first, then the largest (they draw most); on come the largest
first. A host is disabled before it is switched off, so that nothing is placed on it meanwhile, and one that a
consolidation disabled is enabled when it is on again. Hosts that somebody disabled for another reason, nodes in
maintenance, and hosts that are down although their node is on are left alone and named.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from trimtab.platform.contracts import Context
from trimtab.platform.errors import StrategyError
from trimtab.platform.model import VCPU, ClusterModel
from trimtab.platform.model.baremetal import OFF, ON, UNKNOWN, BaremetalModel
from trimtab.platform.model.compute import Ints
from trimtab.platform.proposal import Act, Candidate, Step
from trimtab.platform.schema import without
from trimtab.platform.snapshot import Need, Snapshot
from trimtab.strategies.loads import note
from trimtab.strategies.services import OURS, switch


class Parameters(BaseModel):
    """What an audit may set."""

    model_config = ConfigDict(extra="forbid", strict=True)

    free_used_percent: float = Field(
        10.0, ge=0, json_schema_extra=without("minimum"), description="Free hosts to keep on, % of used"
    )
    min_free_hosts_num: float = Field(
        1, ge=0, json_schema_extra=without("minimum"), description="Free hosts to keep on at least"
    )


class SavingEnergy:
    """Powers free hosts off, or on where too few are ready."""

    name: ClassVar[str] = "saving_energy"
    display_name: ClassVar[str] = "Saving Energy Strategy"
    goal: ClassVar[str] = "saving_energy"
    parameters: ClassVar[type[BaseModel]] = Parameters
    models: ClassVar[tuple[str, ...]] = ("compute", "baremetal")

    def needs(self, parameters: Parameters) -> Sequence[Need]:  # noqa: ARG002 - the contract's signature
        """Nothing is measured."""
        return ()

    def grid(self) -> Sequence[Mapping[str, Any]]:
        """Watcher's reserve, and a larger one."""
        return ({}, {"free_used_percent": 20.0, "min_free_hosts_num": 2})

    def propose(self, snapshot: Snapshot, parameters: Parameters, context: Context) -> Sequence[Candidate]:  # noqa: ARG002
        """One candidate, or none when as many free hosts are on as are wanted.

        Raises:
            StrategyError: the snapshot has no baremetal model.
        """
        metal, model = snapshot.baremetal, snapshot.model
        if metal is None:
            raise StrategyError(
                "saving_energy needs a baremetal model and this cloud has none: configure Ironic, MaaS or metal nodes"
            )
        host = model.host_rows_by_name(metal.hostnames)
        carries = (host >= 0) & ~metal.excluded
        held = np.append(np.bincount(model.host_of[model.host_of >= 0], minlength=model.hosts), 0)[host]
        up = np.append(model.up, False)[host]
        ill = carries & (metal.power == ON) & ~up
        enabled = np.append(model.enabled, False)[host]
        emptied = np.append([model.disabled_reason[row] in OURS for row in range(model.hosts)], False)[host]
        held_back = carries & ~enabled & ~emptied
        left_alone = carries & (metal.maintenance | (metal.power == UNKNOWN) | ill | held_back)
        counted = carries & ~left_alone
        in_use = carries & (held > 0)
        free_on = np.flatnonzero(counted & (held == 0) & (metal.power == ON))
        free_off = np.flatnonzero(counted & (held == 0) & (metal.power == OFF))
        wanted = int(max(in_use.sum() * parameters.free_used_percent / 100, parameters.min_free_hosts_num))
        size = np.append(model.total[:, VCPU], 0.0)[host]
        order = np.lexsort((free_on, -size[free_on], enabled[free_on]))
        off = free_on[order][: max(len(free_on) - wanted, 0)]
        back = np.sort(free_on[order][len(off) :][~enabled[free_on[order][len(off) :]]])  # on, but closed: opened
        on = free_off[np.lexsort((free_off, -size[free_off], ~enabled[free_off]))][: max(wanted - len(free_on), 0)]
        notes = [
            *note(ill, metal.hostnames, "{count} hosts are down although their metal node is on"),
            *note(held_back & ~ill, metal.hostnames, "{count} hosts are disabled for a reason of somebody else"),
            *note(carries & metal.maintenance, metal.hostnames, "{count} metal nodes are in maintenance"),
            *note(carries & (metal.power == UNKNOWN), metal.hostnames, "{count} metal nodes are neither on nor off"),
        ]
        if wanted > len(free_on) + len(on):
            notes.append(f"{wanted} free hosts are wanted and only {len(free_on) + len(on)} can be on")
        if not len(off) and not len(on) and not len(back):
            return ()
        steps: list[Step] = [switch(model, int(host[row]), enabled=True) for row in back]
        steps += [step for row in off for step in _off(model, metal, int(row), host)]
        steps += [step for row in on for step in _on(model, metal, int(row), host)]
        return (
            Candidate(
                tuple(steps),
                because=f"{int(in_use.sum())} hosts are in use, {len(free_on)} free ones are on, {wanted} are enough",
                indicators={"hosts_powered_off_count": float(len(off)), "hosts_powered_on_count": float(len(on))},
                notes=tuple(notes),
            ),
        )


def _power(model: ClusterModel, metal: BaremetalModel, row: int, host: int, state: str) -> Act:
    parameters = {"state": state, "resource_name": model.host_name(host)}
    return Act("change_node_power_state", str(metal.ids[row].as_py()), parameters, host)


def _off(model: ClusterModel, metal: BaremetalModel, row: int, hosts: Ints) -> list[Step]:
    host = int(hosts[row])
    power = _power(model, metal, row, host, "off")
    return [switch(model, host, enabled=False), power] if model.enabled[host] else [power]


def _on(model: ClusterModel, metal: BaremetalModel, row: int, hosts: Ints) -> list[Step]:
    host = int(hosts[row])
    power = _power(model, metal, row, host, "on")
    return [power] if model.enabled[host] else [power, switch(model, host, enabled=True)]
