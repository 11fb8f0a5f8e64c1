"""The only source of now.

In production now is real. In a replay (the shop's last order is from 1998) `PLUMBLINE_NOW` fixes it, or
`PLUMBLINE_CLOCK_SHIFT_DAYS` puts it back and lets it run. Whatever depends on it (ttl, freshness, days since the last
order) agrees on the same instant.

A process that reads the clock, and every one that it starts, runs in UTC, whatever zone its machine has. Spark and
Feast hand over instants without a zone and read them back in the process's own.
"""

from __future__ import annotations

import os
import time
from datetime import UTC, date, datetime, timedelta

from plumbline.settings import settings

os.environ["TZ"] = "UTC"
time.tzset()


def now() -> datetime:
    """The platform's now, aware, UTC: the `PLUMBLINE_NOW` setting, else the real time, put back by whole days where
    `PLUMBLINE_CLOCK_SHIFT_DAYS` says so."""
    return settings().now or wall() + timedelta(days=settings().clock_shift_days)


def is_replay() -> bool:
    """True when `now` is not the real time; answers and pages must say so."""
    return settings().now is not None or settings().clock_shift_days != 0


def wall() -> datetime:
    """The real time, aware, UTC: for the bookkeeping of processes (when a stage ran), never for data."""
    return datetime.now(UTC)


def monotonic() -> float:
    """Seconds on a clock that never steps back, for durations."""
    return time.monotonic()


def in_utc(moment: datetime) -> datetime:
    """A moment in UTC; one without a zone is UTC's already."""
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)


def end_of(day: date) -> datetime:
    """The instant at which everything dated up to `day` is knowable: the next day's 00:00 UTC."""
    return datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1)


def last_whole_day() -> date:
    """The newest day that is over by `now`: what a daily run covers unless told otherwise."""
    return (now() - timedelta(days=1)).date()
