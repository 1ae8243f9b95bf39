"""What the reference gave for the day 20110303, byte-wise order of the VMs: data to compare with.

CloudSim 3.0.3 (4.0 and 5.0 give the same); rows of RS are single runs without a seed. LRR-MU and LRR-RS were not run:
the reference's LRR is its LR, so LRR-MU is compared with LR-MU.
"""

from __future__ import annotations

from typing import NamedTuple

from trimtab.simulator.planetlab.engine import Figures

DAY, ORDER = "20110303", "bytewise"


class Published(NamedTuple):
    """Rounded as printed: kWh to 5 digits, shares in per cent."""

    energy_kwh: float
    migrations: int
    slatah_pct: float
    pdm_pct: float
    slav_1e5: float
    esv_1e3: float
    overall_pct: float
    shutdowns: int
    mean_up_s: float


TABLE: dict[str, Published] = {
    "NPA": Published(2410.80280, 0, 0.00000, 0.000000, 0.00000, 0.0000, 0.000000, 455, 2864.28),
    "DVFS": Published(802.75449, 0, 0.00000, 0.000000, 0.00000, 0.0000, 0.000000, 455, 2864.28),
    "THR-MMT-0.8": Published(192.62307, 26711, 4.91328, 0.064637, 3.17578, 6.1173, 0.071001, 5885, 949.58),
    "IQR-MMT-1.5": Published(189.98007, 26282, 4.82255, 0.062352, 3.00697, 5.7126, 0.070634, 5868, 951.92),
    "MAD-MMT-2.5": Published(185.79167, 26556, 5.04882, 0.066185, 3.34157, 6.2084, 0.078914, 5828, 966.75),
    "LR-MMT-1.2": Published(163.47722, 27859, 5.85795, 0.079275, 4.64387, 7.5917, 0.147236, 5053, 1028.87),
    "LRR-MMT-1.2": Published(163.47722, 27859, 5.85795, 0.079275, 4.64387, 7.5917, 0.147236, 5053, 1028.87),
    "THR-MC-0.8": Published(183.47610, 23967, 6.83824, 0.101932, 6.97036, 12.7889, 0.111669, 5576, 982.94),
    "IQR-MC-1.5": Published(179.24812, 23596, 6.90206, 0.103114, 7.11699, 12.7571, 0.117576, 5511, 996.05),
    "MAD-MC-2.5": Published(175.29298, 23861, 7.00792, 0.105316, 7.38047, 12.9374, 0.128181, 5460, 972.54),
    "LR-MC-1.2": Published(151.06719, 23380, 7.00585, 0.097528, 6.83267, 10.3219, 0.163326, 4078, 1161.07),
    "LRR-MC-1.2": Published(151.06719, 23380, 7.00585, 0.097528, 6.83267, 10.3219, 0.163326, 4078, 1161.07),
    "THR-MU-0.8": Published(207.79430, 30653, 7.38235, 0.066965, 4.94359, 10.2725, 0.071207, 6523, 971.33),
    "IQR-MU-1.5": Published(201.54183, 29410, 7.42979, 0.061130, 4.54181, 9.1536, 0.068488, 6282, 929.17),
    "MAD-MU-2.5": Published(200.13631, 29611, 7.47706, 0.064854, 4.84916, 9.7049, 0.076728, 6281, 978.58),
    "LR-MU-1.2": Published(175.60030, 30166, 8.15182, 0.075171, 6.12784, 10.7605, 0.184133, 5632, 995.66),
    "THR-RS-0.8": Published(185.07701, 24506, 6.85585, 0.103592, 7.10212, 13.1444, 0.113018, 5649, 1010.87),
    "IQR-RS-1.5": Published(179.78746, 23707, 6.99938, 0.101611, 7.11215, 12.7868, 0.116080, 5507, 997.03),
    "MAD-RS-2.5": Published(175.80624, 24071, 7.09775, 0.104439, 7.41285, 13.0323, 0.126303, 5465, 987.41),
    "LR-RS-1.2": Published(151.01768, 22697, 7.03318, 0.099908, 7.02672, 10.6116, 0.160090, 4100, 1147.19),
}
TABLE["LRR-MU-1.2"] = TABLE["LR-MU-1.2"]
TABLE["LRR-RS-1.2"] = TABLE["LR-RS-1.2"]


def published(policy: str, day: str, order: str, hosts: int = 800) -> Published | None:
    """What is known for a policy; None for another day, order or data centre."""
    return TABLE.get(policy) if (day, order, hosts) == (DAY, ORDER, 800) else None


def agrees(figures: Figures, known: Published) -> bool:
    """Counts exactly, energy to 1e-4 kWh, SLATAH and PDM to 1e-6, all as far as they were printed."""
    return (
        figures.migrations == known.migrations
        and figures.shutdowns == known.shutdowns
        and abs(figures.energy_kwh - known.energy_kwh) <= 1e-4
        and abs(figures.slatah - known.slatah_pct / 100) <= 1e-6
        and abs(figures.pdm - known.pdm_pct / 100) <= 1e-6
        and abs(figures.overall - known.overall_pct / 100) <= 1e-6
        and abs(figures.mean_up_s - known.mean_up_s) <= 0.01
    )
