"""What Gnocchi's archive policies keep of a metric: which aggregates, in which steps."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

SPAN: Final = re.compile(r"(?:(\d+) days?, )?(\d+):(\d\d):(\d\d(?:\.\d+)?)")


def keeps(metric: Mapping[str, Any], method: str, granularity_s: float) -> bool:
    """Whether a metric as Gnocchi lists it has an aggregate in steps of so many seconds.

    Raises:
        KeyError, TypeError, ValueError: it is not listed as it should be.
    """
    policy = metric["archive_policy"]
    steps = {seconds(one["granularity"]) for one in policy["definition"]}
    return method in policy["aggregation_methods"] and granularity_s in steps


def seconds(told: str | float) -> float:
    """A span of time as Gnocchi tells it: a number, or text such as `0:05:00` or `30 days, 0:00:00`.

    Raises:
        ValueError: another text.
    """
    if isinstance(told, int | float):
        return float(told)
    found = SPAN.fullmatch(told)
    if found is None:
        return float(told)
    days, hours, minutes, rest = found.groups()
    return timedelta(days=int(days or 0), hours=int(hours), minutes=int(minutes), seconds=float(rest)).total_seconds()
