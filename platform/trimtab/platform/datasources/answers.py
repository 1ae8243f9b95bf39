"""The tables that datasources answer with, and the step of samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import pyarrow as pa

STEP_S: Final = 300  # of samples, s
AGGREGATED: Final = pa.schema([("need", pa.int32()), ("resource", pa.string()), ("value", pa.float64())])
SAMPLES: Final = pa.schema([("resource", pa.string()), ("at", pa.float64()), ("value", pa.float64())])
# What an answer raises that is not as it should be.
ODD: Final = (KeyError, IndexError, TypeError, ValueError, AttributeError)


def aggregated(answers: Sequence[Mapping[str, float]]) -> pa.Table:
    """One row a value; `answers` has for each need, by position, the values by resource."""
    columns = {
        "need": [position for position, found in enumerate(answers) for _ in found],
        "resource": [resource for found in answers for resource in found],
        "value": [value for found in answers for value in found.values()],
    }
    return pa.table(columns, schema=AGGREGATED)
