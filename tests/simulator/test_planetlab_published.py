"""The engine in reference mode against the published figures and checkpoints of the day 20110303."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from trimtab.simulator.planetlab.engine import Tick, simulate
from trimtab.simulator.planetlab.fleet import Fleet, build_fleet, read_day
from trimtab.simulator.planetlab.published import DAY, TABLE, agrees
from trimtab.simulator.planetlab.rules import REFERENCE, SOUND, Policy
from trimtab.simulator.planetlab.table import rows

SHARED = Path(os.environ.get("TRIMTAB_SHARED", str(Path(__file__).parents[3] / "shared")))
TRACES = SHARED / "data" / "planetlab"
pytestmark = [
    pytest.mark.shared,
    pytest.mark.skipif(
        not (TRACES / f"{DAY}.parquet").is_file(),
        reason="needs the PlanetLab traces: set TRIMTAB_SHARED to the folder that has data/planetlab",
    ),
]

# tick: active hosts, VMs, kWh so far, MIPS, overloaded, migrations, first three
THR_TICKS = {
    1: (775, 994, 0.0, 182382.3317, 0, 592, [(813, 7), (649, 11), (667, 13)]),
    2: (320, 959, 2.836486, 174383.0450, 0, 305, [(913, 19), (616, 17), (167, 31)]),
    3: (220, 919, 4.721505, 183513.1400, 0, 215, [(827, 39), (389, 55), (740, 19)]),
    4: (169, 888, 6.180865, 177936.9267, 0, 183, [(625, 275), (288, 39), (425, 31)]),
    5: (134, 868, 7.360460, 183714.4350, 0, 156, [(860, 235), (175, 345), (5, 3)]),
    6: (109, 849, 8.341817, 182019.6167, 0, 122, [(651, 185), (72, 5), (1030, 7)]),
    12: (69, 738, 12.756930, 163399.6300, 4, 91, [(94, 13), (62, 69), (26, 25)]),
    24: (60, 649, 20.899414, 169084.3050, 11, 94, [(214, 1), (141, 9), (390, 11)]),
    48: (64, 594, 36.890296, 164882.0817, 17, 100, [(179, 17), (416, 31), (210, 37)]),
    96: (77, 565, 69.789776, 168726.9250, 9, 88, [(466, 7), (4, 45), (91, 61)]),
    144: (82, 552, 101.670700, 166043.0933, 11, 94, [(239, 3), (181, 19), (83, 25)]),
    192: (73, 542, 134.150495, 159436.9150, 8, 80, [(2, 5), (40, 59), (213, 63)]),
    240: (71, 535, 164.684593, 139727.8550, 3, 78, [(132, 41), (976, 103), (1038, 135)]),
    287: (72, 520, 192.564815, 138230.0000, 10, 81, [(14, 23), (52, 65), (92, 75)]),
}
LR_TICKS = {
    1: (775, 994, 0.0, 182382.3317, 0, 592, [(813, 7), (649, 11), (667, 13)]),
    2: (320, 959, 2.836486, 174383.0450, 0, 305, [(913, 19), (616, 17), (167, 31)]),
    3: (220, 919, 4.721505, 183513.1400, 0, 215, [(827, 39), (389, 55), (740, 19)]),
    4: (169, 888, 6.180865, 177936.9267, 0, 183, [(625, 275), (288, 39), (425, 31)]),
    5: (134, 868, 7.360356, 183714.4350, 0, 163, [(860, 345), (175, 3), (5, 5)]),
    6: (108, 849, 8.334990, 182019.6167, 1, 116, [(26, 11), (801, 13), (857, 17)]),
    12: (61, 738, 12.815284, 163399.6300, 1, 87, [(986, 11), (859, 17), (911, 13)]),
    24: (66, 649, 19.495888, 169084.3050, 9, 137, [(214, 17), (115, 27), (13, 89)]),
    48: (58, 594, 33.548371, 164882.0817, 19, 119, [(414, 33), (179, 37), (210, 41)]),
    96: (70, 565, 61.595578, 168726.9250, 9, 129, [(71, 13), (40, 33), (87, 37)]),
    144: (45, 552, 88.232560, 166043.0933, 16, 76, [(14, 11), (360, 59), (999, 13)]),
    192: (50, 542, 115.512313, 159436.9150, 12, 90, [(196, 17), (651, 71), (118, 23)]),
    240: (68, 535, 140.640089, 139727.8550, 3, 102, [(91, 33), (0, 11), (250, 27)]),
    287: (66, 520, 163.425085, 138230.0000, 14, 123, [(0, 17), (30, 19), (192, 29)]),
}


@pytest.fixture(scope="module")
def fleet() -> Fleet:
    return build_fleet(read_day(TRACES, DAY))


@pytest.mark.parametrize("name", [name for name in TABLE if "-RS-" not in name])
def test_every_published_figure_is_reproduced(fleet: Fleet, name: str) -> None:
    figures = simulate(fleet, Policy.named(name)).figures
    assert agrees(figures, TABLE[name]), f"{name}: {figures} instead of {TABLE[name]}"


@pytest.mark.parametrize(("name", "known"), [("THR-MMT", THR_TICKS), ("LR-MMT", LR_TICKS)])
def test_the_day_goes_by_as_published_tick_by_tick(fleet: Fleet, name: str, known: dict[int, tuple[object]]) -> None:
    seen: dict[int, tuple[object, ...]] = {}

    def watch(tick: Tick, _: object) -> None:
        first = [(int(vm), int(host)) for vm, host in zip(tick.movers[:3], tick.targets[:3], strict=True)]
        counts = tick.overloaded, len(tick.movers), first
        seen[tick.number] = tick.active_hosts, tick.vms, round(tick.energy_kwh, 6), round(tick.demand_mips, 4), *counts

    simulate(fleet, Policy.named(name), watch=watch)
    assert {number: seen[number] for number in known} == known


@pytest.mark.parametrize(
    ("name", "energy", "migrations", "slatah", "pdm", "shutdowns"),
    [("THR-MMT", 191.72762, 26634, 4.951, 0.0654, 5863), ("LR-MMT", 163.15164, 27632, 5.843, 0.0793, 5023)],
)
def test_the_upper_case_order_gives_the_figures_of_the_literature(
    name: str, energy: float, migrations: int, slatah: float, pdm: float, shutdowns: int
) -> None:
    figures = simulate(build_fleet(read_day(TRACES, DAY, "upper-case")), Policy.named(name)).figures
    assert (figures.migrations, figures.shutdowns) == (migrations, shutdowns)
    assert figures.energy_kwh == pytest.approx(energy, abs=1e-4)
    assert (round(100 * figures.slatah, 3), round(100 * figures.pdm, 4)) == (slatah, pdm)


@pytest.mark.parametrize(
    ("name", "energy", "migrations", "slatah", "pdm", "overall", "shutdowns"),
    [
        ("THR-MMT", 253.75560, 41634, 5.3588, 0.06302, 0.07307, 7763),
        ("LR-MMT", 222.05841, 43843, 6.7748, 0.07273, 0.24278, 7121),
    ],
)
def test_idle_vms_that_stay_give_the_known_figures(
    fleet: Fleet, name: str, energy: float, migrations: int, slatah: float, pdm: float, overall: float, shutdowns: int
) -> None:
    figures = simulate(fleet, Policy.named(name), replace(REFERENCE, idle_vms_vanish=False)).figures
    assert (figures.migrations, figures.shutdowns) == (migrations, shutdowns)
    assert figures.energy_kwh == pytest.approx(energy, abs=1e-4)
    assert round(100 * figures.slatah, 4) == slatah
    assert (round(100 * figures.pdm, 5), round(100 * figures.overall, 5)) == (pdm, overall)


def test_random_selection_comes_close_to_the_single_run_of_the_reference(fleet: Fleet) -> None:
    row = next(rows(fleet, DAY, "bytewise", [Policy.named("THR-RS")], ["reference"], 6))
    known = TABLE["THR-RS-0.8"]
    assert row.low.energy_kwh < row.high.energy_kwh  # seeds matter
    assert row.figures.energy_kwh == pytest.approx(known.energy_kwh, rel=0.02)
    assert row.figures.migrations == pytest.approx(known.migrations, rel=0.03)


def test_in_sound_mode_no_vm_of_the_day_gets_lost(fleet: Fleet) -> None:
    run = simulate(fleet, Policy.named("LR-MMT"), SOUND)
    assert (run.home >= 0).all()
    memory = [0.0] * len(fleet.kind)
    for vm, host in enumerate(run.home.tolist()):
        memory[host] += float(fleet.memory[vm])
    assert max(memory) <= 4096
