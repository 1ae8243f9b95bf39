"""What a run of the benchmark goes by: the rules, each with a name, and the policies.

The rules are those of the power package of CloudSim 3.0.3, as used for A. Beloglazov and R. Buyya, CCPE 24(13), 2012.
`REFERENCE` follows them in every detail; `SOUND` replaces those that a real cloud does not obey.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import NamedTuple

from trimtab.platform.errors import InvalidInput

DETECTIONS = ("THR", "IQR", "MAD", "LR", "LRR")
SELECTIONS = ("MMT", "MC", "MU", "RS")
PARAMETER = {"THR": 0.8, "IQR": 1.5, "MAD": 2.5, "LR": 1.2, "LRR": 1.2}
THR, IQR, MAD, LR, LRR = range(5)
MMT, MC, MU, RS = range(4)


class Flags(NamedTuple):
    """The rules as compiled code reads them; meanings stand in `Rules`."""

    idle_vms_vanish: bool
    memory_binds: bool
    unused_is_off: bool
    start_is_free: bool
    power_against_measured: bool
    targets_may_be_emptied: bool
    artefacts_count: bool
    whole_mips: bool
    unweighted_regression: bool


@dataclass(frozen=True, slots=True)
class Rules:
    """Each field is one rule; True for those named after an oddity of the reference.

    Attributes:
        idle_vms_vanish: a VM whose demand is exactly zero is removed for the rest of the day (Q1).
        memory_binds: memory counts at every placement, not only at the first (the other way round: Q2).
        unused_is_off: a host without CPU use is off and draws nothing; otherwise a host is on while it holds a VM,
            from the start, and draws at least its idle power (Q3).
        start_is_free: what happens before the first tick costs nothing (Q3).
        power_against_measured: the power a placement adds is counted from the utilisation last measured, not from
            that of the placement being tried, and switching a host on adds nothing (Q4).
        targets_may_be_emptied: a host that just took VMs of an overloaded host may be emptied in the same tick, so
            that a VM migrates twice (Q5).
        artefacts_count: time counts as violated whenever the MIPS used, with what migrations hide and floors cut
            off, are below the MIPS requested; otherwise only where residents really get less than they ask (Q6).
        whole_mips: shares of an overloaded host are cut off to whole MIPS (Q6).
        unweighted_regression: LR and LRR fit a plain line; otherwise with the tricube and bisquare weights (Q8).
    """

    idle_vms_vanish: bool
    memory_binds: bool
    unused_is_off: bool
    start_is_free: bool
    power_against_measured: bool
    targets_may_be_emptied: bool
    artefacts_count: bool
    whole_mips: bool
    unweighted_regression: bool

    def flags(self) -> Flags:
        """The same for compiled code."""
        return Flags(*(getattr(self, field.name) for field in fields(self)))


REFERENCE = Rules(
    idle_vms_vanish=True,
    memory_binds=False,
    unused_is_off=True,
    start_is_free=True,
    power_against_measured=True,
    targets_may_be_emptied=True,
    artefacts_count=True,
    whole_mips=True,
    unweighted_regression=True,
)
SOUND = Rules(
    idle_vms_vanish=False,
    memory_binds=True,
    unused_is_off=False,
    start_is_free=False,
    power_against_measured=False,
    targets_may_be_emptied=False,
    artefacts_count=False,
    whole_mips=False,
    unweighted_regression=False,
)
MODES = {"reference": REFERENCE, "sound": SOUND}


@dataclass(frozen=True, slots=True)
class Policy:
    """NPA, DVFS, or a detection with its parameter and a selection.

    NPA charges every host its full power; DVFS places VMs once and never moves them.
    """

    name: str
    detection: int = -1  # index into DETECTIONS, -1: nothing ever moves
    selection: int = 0  # index into SELECTIONS
    parameter: float = 0.0

    @property
    def moves(self) -> bool:
        """Does this policy migrate VMs?"""
        return self.detection >= 0

    @classmethod
    def named(cls, name: str) -> Policy:
        """`NPA`, `DVFS`, or `LR-MMT` and the like, with the published parameter unless one follows: `LR-MMT-1.3`.

        Raises:
            InvalidInput: no such policy.
        """
        parts = name.upper().split("-")
        if parts in (["NPA"], ["DVFS"]):
            return cls(parts[0])
        if len(parts) not in (2, 3) or parts[0] not in DETECTIONS or parts[1] not in SELECTIONS:
            raise InvalidInput(
                f"there is no policy {name!r}; give NPA, DVFS or DETECTION-SELECTION with a detection of "
                f"{', '.join(DETECTIONS)} and a selection of {', '.join(SELECTIONS)}, for example LR-MMT"
            )
        try:
            parameter = float(parts[2]) if len(parts) == 3 else PARAMETER[parts[0]]
        except ValueError:
            raise InvalidInput(f"policy {name!r}: {parts[2]!r} is not a number; give for example LR-MMT-1.2") from None
        if not parameter > 0:
            raise InvalidInput(f"policy {name!r}: the parameter must be above 0")
        plain = f"{parts[0]}-{parts[1]}-{parameter:g}"
        return cls(plain, DETECTIONS.index(parts[0]), SELECTIONS.index(parts[1]), parameter)


def every_policy() -> list[Policy]:
    """NPA, DVFS and the twenty combinations, in the order of the published table."""
    pairs = [f"{detection}-{selection}" for selection in SELECTIONS for detection in DETECTIONS]
    return [Policy.named(name) for name in ["NPA", "DVFS", *pairs]]
