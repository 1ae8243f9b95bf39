"""Why instances move, in the strategies' own words: with the figures that a strategy has really compared."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from trimtab.platform.model import ClusterModel
from trimtab.platform.model.compute import Floats, Ints


def by_source(model: ClusterModel, moves: Ints, told: Callable[[int], str]) -> dict[int, str]:
    """One reason for all instances of `moves` [K, 2] that leave the same host; `told` writes it from the host's row."""
    home = model.host_of[moves[:, 0]]
    words = {host: told(host) for host in np.unique(home).tolist()}
    return {instance: words[host] for instance, host in zip(moves[:, 0].tolist(), home.tolist(), strict=True)}


def by_move(model: ClusterModel, moves: Ints, told: Callable[[int, int, int], str]) -> dict[int, str]:
    """One reason for every move of `moves` [K, 2], in order; `told` is given instance, source and destination."""
    home = model.host_of[moves[:, 0]].tolist()
    return {
        instance: told(instance, source, host) for (instance, host), source in zip(moves.tolist(), home, strict=True)
    }


def share(part: Floats | float, whole: Floats | float) -> float:
    """Per cent; 0 of nothing."""
    return 100.0 * float(part) / float(whole) if whole > 0 else 0.0
