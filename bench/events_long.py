"""The order stream, ten million events in one go: what a batch takes as the window fills, and the job's memory.

Not among the benchmarks that run by default: by its name alone, some quarter of an hour.
"""

from __future__ import annotations

import os
from typing import Any

from bench import events, measured
from plumbline.progress import say
from plumbline.settings import settings

EVENTS, PARTS = 10_000_000, 10


def measure() -> dict[str, Any]:
    """By tenths of the events, in their order: events a second, and the most MiB resident."""
    from ingestion.events import topics
    from ingestion.events.stream_tables import EVENTS as TABLE
    from plumbline.lake import tables as lake
    from plumbline.servers import kafka

    with measured.home("events-long", events.DAY) as home:
        os.environ.pop("PLUMBLINE_NOW")
        settings.cache_clear()
        events.empty(home)
        topics.ensure(kafka.broker())
        say(f"sending {EVENTS:,} events")
        measured.worker("events", "send", EVENTS)
        batches, resident = events.drain(EVENTS)
        rows = lake.opened(TABLE).to_pyarrow_dataset().to_table(columns=["event_id"])
        if len(rows["event_id"].unique()) != EVENTS or len(rows) != EVENTS:
            raise RuntimeError(f"{len(rows):,} rows of events, {EVENTS:,} were sent")
    seconds = (batches[-1][0] - batches[0][0]).total_seconds()
    return {
        "events": EVENTS,
        "customers": events.CUSTOMERS,
        "batch": events.BATCH,
        "seconds": round(seconds),
        "per_second": round(sum(count for _, count in batches[1:]) / seconds),
        "parts": [_part(batches, resident, part) for part in range(PARTS)],
    }


def _part(batches: list[tuple[Any, int]], resident: list[float], part: int) -> dict[str, Any]:
    begin, end = (len(batches) * n // PARTS for n in (part, part + 1))
    begin = max(begin, 1)  # what the first batch took is not in the books: they say when each became known
    seconds = (batches[end - 1][0] - batches[begin - 1][0]).total_seconds()
    memory = resident[len(resident) * part // PARTS : len(resident) * (part + 1) // PARTS]
    return {
        "until": sum(count for _, count in batches[:end]),
        "per_second": round(sum(count for _, count in batches[begin:end]) / seconds),
        "seconds_a_batch": round(seconds / (end - begin), 1),
        "peak_mib": round(max(memory)),
    }
