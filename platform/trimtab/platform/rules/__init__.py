"""Hard rules every plan obeys, wherever they come from: `docs/rules.md` is the catalogue."""

from trimtab.platform.rules.book import Rulebook, rulebook, with_rules
from trimtab.platform.rules.kinds import (
    KINDS,
    Among,
    Ban,
    Fence,
    Gather,
    Lonely,
    MaxOnline,
    Preserve,
    ResourceCapacity,
    Root,
    Rule,
    RunningCapacity,
    Split,
    SplitAmong,
    Spread,
)
from trimtab.platform.rules.metadata import of_metadata
from trimtab.platform.rules.reach import destinations, obeying
from trimtab.platform.rules.replay import judge_plan
from trimtab.platform.rules.scheduler import binding_rule, bound_by_rules
from trimtab.platform.rules.verdict import MOST_REASONS, crowded, groups_broken, judge, objections, preferences_missed
from trimtab.platform.rules.violations import Violation, broken
from trimtab.platform.rules.written import AnyRule, bind, check_rules, read_rules, ruled

__all__ = [
    "KINDS", "MOST_REASONS", "Among", "AnyRule", "Ban", "Fence", "Gather", "Lonely", "MaxOnline", "Preserve",
    "ResourceCapacity", "Root", "Rule", "Rulebook", "RunningCapacity", "Split", "SplitAmong", "Spread", "Violation",
    "bind", "binding_rule", "bound_by_rules", "broken", "check_rules", "crowded", "destinations", "groups_broken",
    "judge", "judge_plan", "obeying", "objections", "of_metadata", "preferences_missed", "read_rules", "rulebook",
    "ruled", "with_rules",
]  # fmt: skip
