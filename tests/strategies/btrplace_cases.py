"""The repair problems of the BtrPlace papers as models: hosts, instances, and rules attached."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from trimtab.platform.model import VCPU, ClusterModel
from trimtab.platform.rules import Among, Preserve, Rule, Spread, with_rules
from trimtab.platform.rules.kinds import Disjoint, rows

LEAST_MIGRATIONS = {"nr-r3-c33": 0, "nr-r6-c33": 0, "li-r3-c33": 3, "li-r6-c0": 590}
TO_PLACE = {"nr-r3-c33": 753, "nr-r6-c33": 1496, "li-r3-c33": 0, "li-r6-c0": 0}


def folder() -> Path:
    """Where the cases are, if they are anywhere."""
    shared = os.environ.get("TRIMTAB_SHARED", Path(__file__).parents[3] / "shared")
    return Path(shared) / "data" / "btrplace"


def case(name: str) -> ClusterModel:
    """One case; an instance to boot is an active one on no host, raised demands are preserve rules."""
    tables = {
        part: pq.read_table(folder() / name / f"{part}.parquet")
        for part in ("nodes", "instances", "rules", "node_groups")
    }
    instances = tables["instances"]
    state = ["active" if one == "to-boot" else one for one in instances["state"].to_pylist()]
    instances = instances.set_column(instances.schema.get_field_index("state"), "state", [state])
    model = ClusterModel.from_arrow(
        tables["nodes"].drop(["rack", "must_be_offline"]), instances.drop(["vcpus_required"])
    )
    required = np.array(tables["instances"]["vcpus_required"], np.float64)
    raised = np.flatnonzero(required > model.demand[:, VCPU])
    rules: list[Rule] = [
        Preserve(members=raised[required[raised] == least], resource=VCPU, least=float(least))
        for least in np.unique(required[raised])
    ]
    groups = tables["node_groups"]
    number = np.array(groups["group"].to_pylist(), np.int64)
    host = model.host_rows(groups["node"].to_pylist())
    parts = Disjoint(rows(host[number == n]) for n in range(int(number.max(initial=-1)) + 1))
    given = tables["rules"].to_pylist()
    everybody = model.instance_rows([member for rule in given for member in rule["members"]])
    ends = np.cumsum([len(rule["members"]) for rule in given])
    for n, (rule, members) in enumerate(zip(given, np.split(everybody, ends)[: len(given)], strict=True)):
        if rule["rule"] == "among":
            chosen = (
                parts if rule["node_groups"] == list(range(len(parts))) else [parts[g] for g in rule["node_groups"]]
            )
            rules.append(Among(name=f"r{n}", members=members, host_groups=chosen, continuous=rule["continuous"]))
        else:
            rules.append(Spread(name=f"r{n}", members=members, continuous=rule["continuous"]))
    return with_rules(model, rules)
