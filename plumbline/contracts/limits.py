"""Between which values a column must lie: what its contract states, and what its physical type can hold."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from datetime import date, datetime
from math import isfinite
from typing import Any

from plumbline import clock

Bound = int | float | date | datetime

MOST = int(sys.float_info.max)
"""The largest number of a float or double."""

WIDTHS = {"int": 32, "bigint": 64}
"""Bits of the whole numbers that a contract may name."""


class LimitsError(ValueError):
    """A stated limit is none of its column's type, or leaves no value."""


@dataclass(frozen=True)
class Limits:
    """Inclusive bounds, None where there is none. Numbers, dates, or instants (UTC, aware)."""

    low: Bound | None = None
    high: Bound | None = None

    @classmethod
    def stated(cls, physical: str, minimum: object, maximum: object) -> Limits:
        """A column's stated limits, narrowed to what its physical type holds. Raises LimitsError."""
        low, high = (
            None if value is None else _typed(name, physical, value)
            for name, value in (("minimum", minimum), ("maximum", maximum))
        )
        if low is not None and high is not None and low > high:  # type: ignore[operator]
            raise LimitsError(f"minimum {minimum} is above maximum {maximum}: no value would do")
        if bits := WIDTHS.get(physical):
            least, most = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
            if not all(value is None or least <= value <= most for value in (low, high)):
                raise LimitsError(f"a {physical} holds {least:,} to {most:,}; found {minimum} to {maximum}")
            if bits < 64:  # a shop's whole numbers have 64 bits at most
                low, high = (least if low is None else low), (most if high is None else high)
        return cls(low, high)


def said(bound: Any) -> str:
    """A bound as messages have it."""
    return f"{bound:,}" if isinstance(bound, int | float) else str(bound)


def _typed(name: str, physical: str, value: object) -> Bound:
    if physical in (*WIDTHS, "float", "double"):
        if isinstance(value, int) and not isinstance(value, bool) and (physical in WIDTHS or abs(value) <= MOST):
            return value
        if isinstance(value, float) and physical not in WIDTHS and isfinite(value):
            return value
        raise LimitsError(f"{name}: expected a number that a {physical} can be, found {value!r}")
    try:
        if physical == "date":
            return value if isinstance(value, date) else date.fromisoformat(str(value))
        if physical == "timestamp":
            instant = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
            return clock.in_utc(instant)
    except ValueError:
        example = "1997-01-31" if physical == "date" else "1997-01-31T12:00:00Z"
        raise LimitsError(f'{name}: expected a {physical} as in "{example}", found {value!r}') from None
    raise LimitsError(f"nothing here would check a {name} of a {physical}")
