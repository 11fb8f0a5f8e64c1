"""(a) Reading features online: the predictor's path, Feast's SDK as its documentation has it, and redis-py alone.

All three read the same customers' same values from the same Redis. Feast's and ours decode them and compute the
on-demand feature; ours also checks ages and unknown customers. redis-py only fetches bytes: the floor.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Callable
from typing import Any

from bench import measured, stages
from products.churn import CHURN

SIZES = {1: 1500, 100: 300}
"""Customers a read → reads a round."""

ROUNDS = 3
PATHS = ("predictor", "feast", "redis")


def measure() -> dict[str, Any]:
    """p50 and p99 of each path and size, and the ratio of the predictor's path to both others."""
    with measured.home("demo", stages.LAST):
        measured.plumb("materialize")  # starts Redis; its values are there
        taken: dict[str, dict[str, list[float]]] = {path: {str(size): [] for size in SIZES} for path in PATHS}
        for seed in range(ROUNDS):
            for path in PATHS:  # in turn, so that a slow moment of the machine does not fall on one of them
                for size, seconds in measured.worker("online_read", path, seed).items():
                    taken[path][size] += seconds
    rows = [
        {"customers": size, "path": path, **measured.percentiles(taken[path][str(size)])}
        for size in SIZES
        for path in PATHS
    ]
    ratios = {
        f"{size} customer{'s' if size > 1 else ''}: predictor / {other}": round(
            _p50(rows, size, "predictor") / _p50(rows, size, other), 2
        )
        for size in SIZES
        for other in ("feast", "redis")
    }
    return {"reads": rows, "p50_ratios": ratios}


def _p50(rows: list[dict[str, Any]], size: int, path: str) -> float:
    return float(next(row["p50_ms"] for row in rows if row["customers"] == size and row["path"] == path))


def _reader(path: str) -> Callable[[list[int]], object]:
    if path == "feast":
        import feast  # noqa: F401  # as it is: imported by our store it loses its type checks, and is faster

    from feature_repo import store as feature_store
    from plumbline import clock
    from plumbline.servers import online_store

    if path == "predictor":
        from serving.features import OnlineFeatures

        return OnlineFeatures(CHURN, feature_store.service_name(CHURN)).read
    store = feature_store.open_store(CHURN)
    service = store.get_feature_service(feature_store.service_name(CHURN))
    if path == "feast":
        now = int(clock.now().timestamp())

        def read(customers: list[int]) -> object:
            rows = [{"customer_id": customer, "request_time": now} for customer in customers]
            return store.get_online_features(features=service, entity_rows=rows).to_dict()

        return read
    client: Any = online_store.client(start=False)
    keys = _keys(client, store.project)
    fields = client.hkeys(next(iter(keys.values())))

    def fetch(customers: list[int]) -> object:
        pipeline = client.pipeline(transaction=False)
        for customer in customers:
            pipeline.hmget(keys[customer], fields)
        return pipeline.execute()

    return fetch


def _keys(client: Any, project: str) -> dict[int, bytes]:
    """Feast's keys by number; which customer a key is matters not to how long it takes to fetch."""
    found = [key for key in client.scan_iter(count=10_000) if key.endswith(project.encode())]
    return dict(enumerate(sorted(found), start=1))


def _round(path: str, seed: int) -> dict[int, list[float]]:
    read = _reader(path)
    chosen = random.Random(seed)
    taken: dict[int, list[float]] = {}
    for size, times in SIZES.items():
        batches = [chosen.sample(range(1, 23_001), size) for _ in range(times)]
        for batch in batches[:20]:
            read(batch)  # warm
        taken[size] = []
        for batch in batches:
            begun = time.perf_counter()
            read(batch)
            taken[size].append(time.perf_counter() - begun)
    return taken


if __name__ == "__main__":
    print(json.dumps(_round(sys.argv[1], int(sys.argv[2]))))
