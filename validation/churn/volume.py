"""How many orders a day should bring, judged by the days around it: pure functions on daily counts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

WEEK, WEEKS = 7, 8
"""Days in a week, and how many weeks back a weekday is looked at."""

FEWEST_BEFORE, FEWEST_AFTER = 2, 4
"""Weeks that must be known to expect anything: of a young shop's first days, two weeks after them say too little."""

Expectation = tuple[float, float]
"""Least and greatest number of orders that the days around a day lead to expect."""


def expected(counts: NDArray[Any], day: int, fewest: int = FEWEST_BEFORE) -> Expectation | None:
    """What the days before `day` (an index into daily counts) let expect; None with fewer than `fewest` weeks of them.

    Three expectations: the median of the weekday in the last weeks; the last seven days' level and the day before's,
    each times the weekday's share of the weeks. A day before without any order is no level.
    """
    import numpy as np

    weeks = min(WEEKS, day // WEEK)
    if weeks < fewest:
        return None
    before = counts[day - WEEK * weeks : day]
    same = before[::WEEK]
    share = same.sum() / before.sum() if before.sum() else 0.0
    levels = [float(np.median(same)), float(before[-WEEK:].sum() * share)]
    if before[-1]:
        levels.append(float(before[-1] * share * WEEK))
    return min(levels), max(levels)


def around(counts: NDArray[Any], day: int) -> Expectation | None:
    """The same by the days before and, where four weeks of them are known, after: a new level is no gap and no peak."""
    sides = (expected(counts, day), expected(counts[::-1], len(counts) - 1 - day, FEWEST_AFTER))
    known = [side for side in sides if side is not None]
    return (min(low for low, _ in known), max(high for _, high in known)) if known else None
