"""OpenStack's timestamps as seconds since the epoch."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any


def seconds_of(text: Any, missing: float = 0.0) -> float:
    """An ISO 8601 moment, with or without zone and fractions (without: UTC); `missing` for null and other text."""
    try:
        moment = datetime.fromisoformat(str(text))
    except ValueError:
        return missing
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
