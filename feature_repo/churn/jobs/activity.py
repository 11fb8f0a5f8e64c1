"""What customers did in the last hour, day and week: activity.sql over order events, for stream and batch alike.

The stream asks about the customers that a micro-batch touched, at that batch's `known_at`; the batch recomputation asks
about any customers at any instants. Both run the same text over the same events, so both give the same integers.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from plumbline import clock

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

TABLE = "features.customer_activity"
EVENTS = "raw.order_events"
SQL = Path(__file__).with_suffix(".sql")
NAMES = {"events": EVENTS, "asked": "asked"}
"""What the SQL's placeholders stand for in lineage."""

WINDOW = timedelta(days=7)
"""The longest window, and how long a row may be served."""

AHEAD = timedelta(minutes=5)
"""How much later than its `known_at` an event may be placed, at most: clocks differ. What is more is a dead letter."""

READ = ("customer_id", "event_time", "total_cents", "known_at")
FEATURES = (
    "orders_1h",
    "orders_24h",
    "orders_7d",
    "spend_cents_1h",
    "spend_cents_24h",
    "spend_cents_7d",
    "last_order_second",
)


def rows(session: SparkSession, events: DataFrame, asked: DataFrame, at: datetime | None = None) -> DataFrame:
    """One row for each pair (customer_id, known_at) in `asked`: customer_id, event_time (that known_at), FEATURES.

    `events` is the table of EVENTS, of which this reads no more than the window needs. `at` is the one known_at of all
    pairs, where there is one and each customer is asked about once: then nothing is computed before the rows are asked
    for, and `asked`, the customers of a micro-batch, goes to where the events are.
    """
    pairs = asked.select("customer_id", "known_at")
    pairs = pairs.distinct() if at is None else pairs.hint("broadcast")
    first, last = (at, at) if at is not None else _span(pairs)
    return session.sql(SQL.read_text(), events=events.where(needed(first, last)).select(*READ), asked=pairs)


def needed(first: datetime | None, last: datetime | None) -> str:
    """A condition on the table of EVENTS that holds for all that rows of these instants are made of (aware, UTC).

    It names the partition column, so that a scan opens the days of the window alone. To the day, not to the instant,
    which the SQL tells: Spark compiles a plan anew for each other literal in it, and then runs it cold. None, for no
    instants, needs nothing.
    """
    if first is None or last is None:
        return "false"
    oldest = first - WINDOW
    return (
        f"known_date >= DATE '{oldest - AHEAD:%Y-%m-%d}' AND known_date <= DATE '{last:%Y-%m-%d}' "
        f"AND event_time >= TIMESTAMP '{oldest:%Y-%m-%d}'"
    )


def _span(pairs: DataFrame) -> tuple[datetime | None, datetime | None]:
    """The first and the last instant asked about."""
    ends = pairs.selectExpr("min(known_at) AS first", "max(known_at) AS last").first()
    if ends is None or ends["first"] is None:
        return None, None
    return clock.in_utc(ends["first"]), clock.in_utc(ends["last"])
