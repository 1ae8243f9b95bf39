"""Compiled: which VM leaves an overloaded host?

MC asks how well the others explain a VM: R² of the least-squares regression of its history on theirs, by Householder
QR (G. Golub, "Numerical methods for solving linear least squares problems", Numerische Mathematik 7, 1965). The
reference takes a matrix for singular only where a diagonal element of R is exactly zero, so the order of every sum
matters here. All regressions of a host share the reflections of the columns before the one that is left out. Where the
answer is clear by far, one Cholesky factorisation gives it instead.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from trimtab.simulator.planetlab.fleet import Floats, Ints
from trimtab.simulator.planetlab.rules import MC, MU, RS
from trimtab.simulator.planetlab.state import WINDOW, State

PIVOT = 1e-6  # a history is told apart from the others when so much of its square is its own
LEAD = 1e-6  # of R², over the second


@njit(cache=True, error_model="numpy")
def pick(s: State, selection: int, tick: int, vms: Ints, count: int) -> int:
    """Position in `vms` of the VM that leaves; the first of equals.

    Args:
        s: demands, memory and histories.
        selection: row of `rules.SELECTIONS`.
        tick: number of this tick, from 1.
        vms: VMs of the host in the order of arrival.
        count: how many of them.
    """
    if selection == RS:
        return np.int64(next_random(s) % np.uint64(count))  # type: ignore[return-value]
    if selection == MC:
        best = most_explained(s, tick, vms, count)
        if best >= 0:
            return best
    best, lowest = 0, np.inf
    for n in range(count):
        v = vms[n]
        value = s.vm[v].demand / s.vm[v].mips if selection == MU else s.vm[v].memory
        if value < lowest:
            best, lowest = n, value
    return best


@njit(cache=True, error_model="numpy")
def next_random(s: State) -> np.uint64:
    """SplitMix64: G. Steele, D. Lea, C. Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014."""
    s.random[0] += np.uint64(0x9E3779B97F4A7C15)
    z = s.random[0]
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@njit(cache=True, error_model="numpy")
def most_explained(s: State, tick: int, vms: Ints, count: int) -> int:
    """Position of the VM with the largest R²; -1 where a regression is impossible."""
    rows = min(tick, WINDOW)
    if count < 2 or count > rows:
        return -1
    clear = clearly_most_explained(s, tick, vms, count, rows)
    if clear >= 0:
        return clear
    # Column 0 is the intercept, column 1 + n the history of VM n, newest first.
    data = np.ones((rows, count + 1))
    for n in range(count):
        for row in range(rows):
            data[row, n + 1] = s.measured[vms[n], tick - 1 - row]
    shared = data.copy()
    diagonal = np.zeros(count + 1)
    pivot = np.empty(rows)
    if not reflect(shared, 0, 0, 1, diagonal, pivot):
        return -1
    best, most = 0, 5e-324
    for n in range(count):
        value = explained(data, shared, diagonal, pivot, n)
        if value == -np.inf:
            return -1
        if value > most:
            best, most = n, value
        if n + 2 <= count and not reflect(shared, n + 1, n + 1, n + 2, diagonal, pivot):
            return -1
    return best


@njit(cache=True, error_model="numpy")
def clearly_most_explained(s: State, tick: int, vms: Ints, count: int, rows: int) -> int:
    """What `most_explained` would say, from one factorisation for all VMs; -1 where rounding might decide.

    With C the sums of products of the centred histories, R² of VM i on all others is 1 - 1 / (C_ii (C^-1)_ii), the
    variance inflation factor's other form (D. Marquardt, Technometrics 12, 1970). With pivots that keep `PIVOT` of
    their column both ways agree to about 1e-10, so a lead of `LEAD` is certain.
    """
    centred = np.empty((count, rows))
    for n in range(count):
        mean = 0.0
        for row in range(rows):
            centred[n, row] = s.measured[vms[n], tick - 1 - row]
            mean += centred[n, row]
        mean /= rows
        square = 0.0
        for row in range(rows):
            centred[n, row] -= mean
            square += centred[n, row] * centred[n, row]
        if square <= PIVOT * rows * mean * mean:
            return -1
    lower, own = np.zeros((count, count)), np.empty(count)
    for n in range(count):
        for other in range(n + 1):
            product = 0.0
            for row in range(rows):
                product += centred[n, row] * centred[other, row]
            if other == n:
                own[n] = product
            for k in range(other):
                product -= lower[n, k] * lower[other, k]
            if other < n:
                lower[n, other] = product / lower[other, other]
            elif product <= PIVOT * own[n]:
                return -1
            else:
                lower[n, n] = math.sqrt(product)
    # Column n of the inverse of `lower`, from its diagonal down; the sum of its squares is the inverse's diagonal.
    column = np.empty(count)
    best, most, second = -1, -np.inf, -np.inf
    for n in range(count):
        column[n] = 1 / lower[n, n]
        total = column[n] * column[n]
        for row in range(n + 1, count):
            value = 0.0
            for k in range(n, row):
                value -= lower[row, k] * column[k]
            column[row] = value / lower[row, row]
            total += column[row] * column[row]
        value = 1 - 1 / (own[n] * total)
        if value > most:
            best, most, second = n, value, most
        elif value > second:
            second = value
    return best if most - second > LEAD and most > LEAD else -1


@njit(cache=True, error_model="numpy")
def reflect(matrix: Floats, column: int, minor: int, first: int, diagonal: Floats, pivot: Floats) -> bool:
    """Reflect `column` onto row `minor` and apply that to the columns from `first` on; False: it has no length."""
    rows, columns = matrix.shape
    square = 0.0
    for row in range(minor, rows):
        square += matrix[row, column] * matrix[row, column]
    corner = matrix[minor, column]
    size = -math.sqrt(square) if corner > 0 else math.sqrt(square)
    diagonal[minor] = size
    if size == 0.0:
        return False
    for row in range(minor, rows):
        pivot[row] = matrix[row, column]
    pivot[minor] -= size
    along = np.zeros(columns - first)
    for row in range(minor, rows):
        for other in range(columns - first):
            along[other] += matrix[row, first + other] * pivot[row]
    scale = size * pivot[minor]
    for other in range(columns - first):
        along[other] /= scale
    for row in range(minor, rows):
        for other in range(columns - first):
            matrix[row, first + other] += along[other] * pivot[row]
    return True


@njit(cache=True, error_model="numpy")
def explained(data: Floats, shared: Floats, diagonal: Floats, pivot: Floats, left_out: int) -> float:
    """R² of the regression of VM `left_out` on the others; -inf: singular, NaN where it never changed."""
    rows, columns = data.shape
    # The columns still to be reflected, and last the one to be explained.
    later = columns - left_out - 2
    matrix = np.empty((rows, later + 1))
    for row in range(rows):
        for n in range(later):
            matrix[row, n] = shared[row, left_out + 2 + n]
        matrix[row, later] = shared[row, left_out + 1]
    own = diagonal.copy()
    for n in range(later):
        if not reflect(matrix, n, left_out + 1 + n, n + 1, own, pivot):
            return -np.inf
    unknowns = columns - 1
    y = matrix[:, later].copy()
    weights = np.zeros(unknowns)
    for row in range(unknowns - 1, -1, -1):
        value = y[row] / own[row]
        weights[row] = value
        for above in range(row):
            entry = shared[above, row] if row <= left_out else matrix[above, row - left_out - 1]
            y[above] -= value * entry
    wanted = data[:, left_out + 1]
    rest = 0.0
    for row in range(rows):
        fitted = 0.0
        for unknown in range(unknowns):
            column = unknown if unknown <= left_out else unknown + 1
            fitted += data[row, column] * weights[unknown]
        off = wanted[row] - fitted
        rest += off * off
    mean = moment = 0.0
    for row in range(rows):
        off = wanted[row] - mean
        step = off / (row + 1.0)
        mean += step
        moment += row * off * step
    if moment == 0.0:
        return np.nan if rest == 0.0 else -1.0  # -infinity as a number would be, but never the largest
    return 1 - rest / moment
