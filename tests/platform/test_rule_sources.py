"""Where rules come from: an operator's file, the scope of an audit, metadata of instances; and every fault named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from trimtab.platform import rules as r
from trimtab.platform import scope, scope_schema
from trimtab.platform.errors import RulesError
from trimtab.platform.model import ClusterModel


def cloud(metadata: list[dict[str, str]] | None = None) -> ClusterModel:
    """Four hosts in two zones, six instances on them in turn."""
    hosts = pa.table(
        {
            "uuid": [f"h{n}" for n in range(4)],
            "hostname": [f"host{n}" for n in range(4)],
            "vcpus": [8.0] * 4,
            "memory_mb": [64.0] * 4,
            "disk_gb": [64.0] * 4,
            "zone": ["a", "a", "b", "b"],
            "aggregates": [["ssd"], ["ssd", "gold"], ["gold"], []],
            "traits": [["AVX"], [], ["AVX", "OLD"], []],
        }
    )
    instances = pa.table(
        {
            "uuid": [f"v{n}" for n in range(6)],
            "name": ["web-0", "web-1", "db-0", "db-1", "x-0", "x-1"],
            "node": [f"h{n % 4}" for n in range(6)],
            "vcpus": [1.0] * 6,
            "memory_mb": [1.0] * 6,
            "disk_gb": [1.0] * 6,
            "project": ["p1", "p1", "p1", "p2", "p2", "p2"],
            "flavor": ["m1.small"] * 4 + ["m1.large"] * 2,
            "metadata": [json.dumps(one) for one in metadata or [{}] * 6],
        }
    )
    return ClusterModel.from_arrow(hosts, instances)


def shown(rules: list[r.Rule]) -> list[tuple[Any, ...]]:
    return [(rule.kind, rule.members.tolist(), rule.hosts.tolist(), rule.continuous) for rule in rules]


@pytest.mark.parametrize(
    ("written", "wanted"),
    [
        ({"rule": "spread", "instances": "web-*"}, ("spread", [0, 1], [], True)),
        ({"rule": "gather", "instances": {"projects": ["p2"], "names": ["db*"]}}, ("gather", [3], [], True)),
        ({"rule": "lonely", "instances": {"flavors": ["*large"]}, "continuous": False}, ("lonely", [4, 5], [], False)),
        ({"rule": "root", "instances": {"uuids": ["v2"]}}, ("root", [2], [], True)),
        ({"rule": "fence", "instances": "db-0", "hosts": {"zones": ["a"]}}, ("fence", [2], [0, 1], True)),
        ({"rule": "ban", "instances": "db-0", "hosts": ["host3", "host1"]}, ("ban", [2], [1, 3], True)),
        (
            {"rule": "fence", "instances": "db-0", "hosts": {"aggregates": ["ssd"], "traits": ["AVX"]}},
            ("fence", [2], [0], True),
        ),
        ({"rule": "aggregates", "instances": "x-*", "required": ["ssd", "gold"]}, ("fence", [4, 5], [1], True)),
        ({"rule": "traits", "instances": "x-0", "required": ["AVX"]}, ("fence", [4], [0, 2], True)),
        ({"rule": "traits", "instances": "x-0", "forbidden": ["OLD"]}, ("ban", [4], [2], True)),
        ({"rule": "among", "instances": "web-*", "host_groups": "zone"}, ("among", [0, 1], [], True)),
        ({"rule": "split", "groups": ["web-*", "db-*"]}, ("split", [0, 1, 2, 3], [], True)),
        (
            {"rule": "split_among", "groups": ["web-*", "db-*"], "host_groups": ["host[01]", "host[23]"]},
            ("split_among", [0, 1, 2, 3], [], True),
        ),
        ({"rule": "max_online", "hosts": {"zones": ["b"]}, "most": 1}, ("max_online", [], [2, 3], True)),
        ({"rule": "running_capacity", "hosts": "host0", "most": 3}, ("running_capacity", [], [0], True)),
        (
            {"rule": "resource_capacity", "hosts": "host0", "resource": "vcpus", "most": 3.5},
            ("resource_capacity", [], [0], True),
        ),
        ({"rule": "preserve", "instances": "x-0", "resource": "memory_mb", "least": 8}, ("preserve", [4], [], True)),
    ],
)
def test_every_kind_of_rule_can_be_written(written: dict[str, Any], wanted: tuple[Any, ...]) -> None:
    notes: list[str] = []
    assert shown(r.bind(cloud(), r.check_rules([written]), notes)) == [wanted]
    assert notes == []


def test_every_fault_of_a_file_is_named_with_its_path_at_once(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(
        "rules:\n"
        "  - {rule: spred, instances: web-*}\n"
        "  - {rule: spread}\n"
        "  - {rule: fence, instances: web-*, hosts: {zone: [a]}}\n"
        "  - {rule: max_online, hosts: '*', most: -1}\n"
        "  - {rule: ban, instances: {}, hosts: host0}\n",
        encoding="utf-8",
    )
    with pytest.raises(RulesError) as caught:
        r.read_rules(path)
    faults = str(caught.value).split("; ")
    start = f"rules file {path}: rules"
    assert [fault.removeprefix(start).partition(": ")[0] for fault in faults if fault.startswith(start)] == [
        "[0]",
        "[1].instances",
        "[2].hosts.zone",
        "[3].most",
        "[4].instances",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rules: {", "set TRIMTAB_RULES_FILE"),
        ("{rulez: []}", "the only key is `rules`, a list; found rulez"),
        ("7", "Input should be a valid list"),
    ],
)
def test_a_file_that_holds_no_rules_is_refused_with_the_remedy(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(RulesError, match=message):
        r.read_rules(path)
    with pytest.raises(RulesError, match="set TRIMTAB_RULES_FILE"):
        r.read_rules(tmp_path / "missing.yaml")


def test_json_is_read_as_well_and_an_empty_file_has_no_rules(tmp_path: Path) -> None:
    path = tmp_path / "rules.json"
    path.write_text(json.dumps([{"rule": "spread", "instances": ["web-*"]}]), encoding="utf-8")
    assert [one.rule for one in r.read_rules(path)] == ["spread"]
    path.write_text("", encoding="utf-8")
    assert r.read_rules(path) == []


def test_rules_that_bind_nobody_or_overlap_are_noted() -> None:
    notes: list[str] = []
    written = r.check_rules(
        [
            {"rule": "spread", "name": "typo", "instances": "wbe-*"},
            {"rule": "among", "name": "aggs", "instances": "web-*", "host_groups": "aggregate"},
        ]
    )
    assert [rule.kind for rule in r.bind(cloud(), written, notes)] == ["spread"]
    assert notes[0] == 'rule typo: no instance is {"names": ["wbe-*"]}'
    assert notes[1].startswith("rule aggs (among): host row 1 is in two of its host_groups")


@pytest.mark.parametrize(
    ("key", "value", "wanted"),
    [
        ("fence", "host0, zone=b", [("fence", [0], [0, 2, 3], True)]),
        ("ban", "aggregate=gold; discrete", [("ban", [0], [1, 2], False)]),
        ("fence", "trait=AVX", [("fence", [0], [0, 2], True)]),
        ("root", "true", [("root", [0], [], True)]),
        ("aggregates", "ssd, gold", [("fence", [0], [1], True)]),
        ("traits", "AVX, !OLD", [("fence", [0], [0, 2], True), ("ban", [0], [2], True)]),
        ("preserve", "vcpus=4, memory_mb=8", [("preserve", [0], [], True), ("preserve", [0], [], True)]),
    ],
)
def test_metadata_of_one_instance_binds_it(key: str, value: str, wanted: list[Any]) -> None:
    notes: list[str] = []
    found = r.of_metadata(cloud([{f"trimtab:{key}": value, "other": "x"}, *({} for _ in range(5))]), notes)
    assert shown(found) == wanted
    assert notes == []


def test_labels_hold_among_the_instances_of_one_project() -> None:
    label = {"trimtab:spread": "app"}
    found = r.of_metadata(cloud([label, label, {}, label, label, {}]), [])
    assert shown(found) == [("spread", [0, 1], [], True), ("spread", [3, 4], [], True)]
    halves = [{"trimtab:split": "app/blue"}, {"trimtab:split": "app/green"}, {"trimtab:same_zone": "db"}]
    zone, split = sorted(r.of_metadata(cloud([*halves, {}, {}, {}]), []), key=lambda rule: rule.kind)
    assert isinstance(split, r.Split)
    assert [group.tolist() for group in split.groups] == [[0], [1]]
    assert isinstance(zone, r.Among)
    assert [group.tolist() for group in zone.host_groups] == [[0, 1], [2, 3]]


@pytest.mark.parametrize(
    ("key", "value", "note"),
    [
        ("fenc", "host0", "there is no such rule"),
        ("fence", "rack=7", "there is no term 'rack'"),
        ("fence", "zone=", "zone= of what?"),
        ("fence", "a,,b", "between two commas"),
        ("root", "maybe", "write one of true"),
        ("preserve", "vcpu=1", "write RESOURCE=AMOUNT"),
        ("preserve", "vcpus=much", "could not convert"),
        ("preserve", "vcpus=-1", "the amount is a number from 0 on"),
        ("spread", "a; sometimes", "write VALUE or"),
        ("spread", "", "write VALUE or"),
    ],
)
def test_metadata_nobody_understands_is_noted_and_binds_nobody(key: str, value: str, note: str) -> None:
    notes: list[str] = []
    assert r.of_metadata(cloud([{f"trimtab:{key}": value}, *({} for _ in range(5))]), notes) == []
    assert len(notes) == 1
    assert note in notes[0]


def test_an_audit_brings_rules_in_its_scope() -> None:
    given = [{"compute": [{"rules": [{"rule": "spread", "name": "mine", "instances": "x-*"}]}]}]
    model, notes = scope.narrow(cloud(), scope_schema.check_scope(given))
    assert [rule.label for rule in r.rulebook(model).rules] == ["mine (spread)"]
    assert notes == []
    with pytest.raises(RulesError, match=r"scope compute rules\[0\]\.instances: Field required"):
        scope_schema.check_scope([{"compute": [{"rules": [{"rule": "spread"}]}]}])


def test_metadata_and_written_rules_are_put_together() -> None:
    model = r.ruled(
        cloud([{"trimtab:root": "yes"}, *({} for _ in range(5))]),
        r.check_rules([{"rule": "ban", "instances": "web-*", "hosts": "host3"}]),
        [],
    )
    assert [rule.kind for rule in r.rulebook(model).rules] == ["root", "ban"]
    assert model.movable.tolist() == [False, True, True, True, True, True]
    assert not r.destinations(model.placement(), 1)[3]
