"""(c) A release's rows into Redis: `plumb materialize`, stock Feast, and the same bytes by pipelined HSET alone."""

from __future__ import annotations

import contextlib
import io
from functools import partial
from typing import Any

from bench import measured, stages
from products.churn import CHURN

BATCH = 1000
ROUNDS = 2


def measure() -> dict[str, Any]:
    """Rows a second of each, on one release's customers, Spark warm."""
    with measured.home("demo", stages.LAST):
        from feature_repo import materialize as ours
        from feature_repo import store as feature_store
        from plumbline import clock
        from plumbline.servers import online_store
        from plumbline.state import releases

        client: Any = online_store.client()
        release = releases.required(CHURN.name)
        end = clock.end_of(release.as_of)
        store = feature_store.at_release(CHURN, release)
        start = end - store.get_feature_view(CHURN.view).ttl
        ours.materialize(CHURN)  # warm

        def stock() -> None:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                store.materialize(start, end, feature_views=[CHURN.view])

        seconds: dict[str, list[float]] = {"plumb materialize": [], "stock Feast": [], "pipelined HSET": []}
        rows = 0
        for _ in range(ROUNDS):
            client.flushall()
            seconds["plumb materialize"].append(measured.took(lambda: ours.materialize(CHURN)))
            client.flushall()
            seconds["stock Feast"].append(measured.took(stock))
            held = {key: client.hgetall(key) for key in client.scan_iter(count=10_000)}
            rows = len(held)
            client.flushall()
            seconds["pipelined HSET"].append(measured.took(partial(_hset, client, held)))
        client.flushall()
        ours.materialize(CHURN)
    best = {name: min(taken) for name, taken in seconds.items()}
    return {
        "rows": rows,
        "paths": [
            {"path": name, "seconds": round(taken, 2), "rows_per_second": round(rows / taken)}
            for name, taken in best.items()
        ],
        "ratio_to_stock_feast": round(best["plumb materialize"] / best["stock Feast"], 2),
    }


def _hset(client: Any, held: dict[bytes, dict[bytes, bytes]]) -> None:
    pipeline = client.pipeline(transaction=False)
    for number, (key, values) in enumerate(held.items(), start=1):
        pipeline.hset(key, mapping=values)
        if number % BATCH == 0:
            pipeline.execute()
    pipeline.execute()
