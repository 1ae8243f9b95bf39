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
from trimtab.platform.rules.reach import destinations, obeying
from trimtab.platform.rules.replay import judge_plan
from trimtab.platform.rules.verdict import MOST_REASONS, groups_broken, judge, preferences_missed
from trimtab.platform.rules.violations import Violation, broken

__all__ = [
    "KINDS", "MOST_REASONS", "Among", "Ban", "Fence", "Gather", "Lonely", "MaxOnline", "Preserve", "ResourceCapacity",
    "Root", "Rule", "Rulebook", "RunningCapacity", "Split", "SplitAmong", "Spread", "Violation", "broken",
    "destinations", "groups_broken", "judge", "judge_plan", "obeying", "preferences_missed", "rulebook", "with_rules",
]  # fmt: skip
