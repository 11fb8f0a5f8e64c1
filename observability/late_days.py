"""The daily promise as numbers: of the last days that were due, how many were not in force by their deadline.

A ratio of requests cannot say it: 99.5% of days is one late day in 200. Releases are numbered objects that never
change, so the days are counted from them, back over the whole window, and not from what Prometheus happened to see.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from datetime import date, datetime, timedelta

from observability.promises import DAYS
from plumbline import clock


def late_days(published: Sequence[tuple[datetime, date]], now: datetime, deadline: timedelta) -> tuple[int, list[date]]:
    """How many of the last DAYS days were due by `now`, and those of them that were late.

    `published` is (when, as_of) of every release in order. Day D is due `deadline` after its end, and on time when the
    release that was in force then covers it: one that was undone by then does not count. Days before the first release
    were nobody's.
    """
    if not published:
        return 0, []
    times = [when for when, _ in published]
    last = (now - deadline - timedelta(days=1)).date()
    first = max(published[0][1], last - timedelta(days=DAYS - 1))
    due = [first + timedelta(days=n) for n in range((last - first).days + 1)]
    return len(due), [day for day in due if not _on_time(published, times, day, deadline)]


def _on_time(
    published: Sequence[tuple[datetime, date]], times: Sequence[datetime], day: date, deadline: timedelta
) -> bool:
    behind = bisect_right(times, clock.end_of(day) + deadline)
    return behind > 0 and published[behind - 1][1] >= day
