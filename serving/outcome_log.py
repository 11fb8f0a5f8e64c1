"""The outcome log: everything that was scored, as it was scored, in a Delta table a product.

Rows wait in a bounded queue and a thread appends them, so that an answer never waits for the lake: no room, no row,
and a counter says so. A write that fails is tried again with the next one.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from plumbline import clock
from plumbline.lake import tables as lake
from plumbline.metrics import instrument
from plumbline.product import Product
from plumbline.progress import warn

if TYPE_CHECKING:
    import pyarrow as pa

RETENTION = {"delta.deletedFileRetentionDuration": "interval 7 days", "delta.logRetentionDuration": "interval 30 days"}
"""How long files and versions stay that a compaction replaced, for whoever vacuums the table."""

LONGER = 4
"""How often the wait doubles while the lake refuses: from 5 s to 80 s."""

Write = Callable[[list[dict[str, Any]]], None]


def append(table: str, schema: pa.Schema, rows: list[dict[str, Any]]) -> None:
    """Appends rows to a product's log, which the first ones create, in one commit. No JVM."""
    import pyarrow as pa
    from deltalake import write_deltalake

    write_deltalake(
        lake.uri(table),
        pa.Table.from_pylist(rows, schema=schema),
        mode="append",
        schema_mode="merge",
        configuration=RETENTION,
        storage_options=lake.storage_options(),
    )


class OutcomeLog:
    """A bounded queue before the table, emptied when `batch` rows wait or the first has waited `seconds`.

    Many small files cost every reader. A predictor writes one at least every 5 s while it is asked, and more often
    when more than 100 rows a second are scored; `plumb compact_log` makes few of them. A predictor that is killed
    (SIGKILL, no memory) loses what waits: at most 5 s of rows and, while the lake is slow or refuses, `capacity`.
    """

    def __init__(
        self, product: Product, write: Write, capacity: int = 20_000, batch: int = 500, seconds: float = 5.0
    ) -> None:
        """`write` appends rows to the product's log."""
        self._product, self._write = product, write
        self._capacity, self._batch, self._seconds = capacity, batch, seconds
        self._waiting: deque[dict[str, Any]] = deque()
        self._change = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="outcome-log", daemon=True)
        self._thread.start()

    def add(self, rows: Iterable[dict[str, Any]]) -> None:
        """Queues rows. Returns at once; what has no room is dropped and counted."""
        dropped = 0
        with self._change:
            for row in rows:
                if self._closed or len(self._waiting) >= self._capacity:
                    dropped += 1
                else:
                    self._waiting.append(row)
            self._change.notify()
        self._drop(dropped, "full")

    def close(self, timeout: float = 5.0) -> None:
        """Writes what waits, once, and ends the thread. What the lake did not take within `timeout` is counted."""
        with self._change:
            self._closed = True
            self._change.notify()
        self._thread.join(timeout)
        with self._change:
            left = len(self._waiting)
            self._waiting.clear()
        self._drop(left, "closed")

    def _run(self) -> None:
        self._enough, failures = self._batch, 0
        while True:
            with self._change:
                self._change.wait_for(lambda: self._waiting or self._closed)
                wait = self._seconds * 2 ** min(failures, LONGER)
                self._change.wait_for(lambda: len(self._waiting) >= self._enough or self._closed, wait)
                rows, last = list(self._waiting), self._closed
                self._waiting.clear()
            if rows and not self._written(rows):
                self._put_back(rows)
                self._enough, failures = self._capacity + 1, failures + 1  # a lake that refused is not asked at once
            else:
                self._enough, failures = self._batch, 0
            if last:
                return

    def _written(self, rows: list[dict[str, Any]]) -> bool:
        begun = clock.monotonic()
        try:
            self._write(rows)
        except Exception as error:
            instrument("outcome_log_failures_total").labels(self._product.name).inc()
            took = clock.monotonic() - begun
            why = (str(error) or type(error).__name__).splitlines()[0][:300]  # delta-rs adds a stack of its own
            table = self._product.log
            warn(f"outcome log: {len(rows)} rows not written to {table} after {took:.1f} s, kept for later: {why}")
            return False
        instrument("outcome_log_rows_total").labels(self._product.name).inc(len(rows))
        return True

    def _put_back(self, rows: list[dict[str, Any]]) -> None:
        with self._change:
            room = min(self._capacity - len(self._waiting), len(rows))
            self._waiting.extendleft(reversed(rows[len(rows) - room :]))
        self._drop(len(rows) - room, "full")

    def _drop(self, count: int, reason: str) -> None:
        if count:
            instrument("outcome_log_dropped_total").labels(self._product.name, reason).inc(count)
