"""(b) Predictions end to end over HTTP, against the same server with the features given: what reading them costs."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from bench import measured, stages
from plumbline.product import Product
from plumbline.servers import services
from plumbline.settings import ROOT
from products.churn import CHURN

CONNECTIONS = {1: 1000, 8: 3000, 32: 3000}
"""Connections → requests a round, each for one customer, one after the other on its connection."""

ROUNDS = 2
URL = "http://{host}:{port}/v1/models/churn-predictor:predict"


def measure() -> dict[str, Any]:
    """Requests a second, p50 and p99 of both servers at each number of connections."""
    with measured.home("demo", stages.LAST):
        from serving import launch

        measured.plumb("materialize")
        ours = launch.ensure(CHURN)
        taken: dict[tuple[str, int], tuple[list[float], float]] = {}
        with _given() as port:
            for _ in range(ROUNDS):
                for name, at in (("features from Redis", ours.port), ("features given", port)):
                    for connections, requests in CONNECTIONS.items():
                        seconds, wall = asyncio.run(_load(at, connections, requests))
                        before, so_far = taken.setdefault((name, connections), ([], 0.0))
                        taken[name, connections] = ([*before, *seconds], so_far + wall)
    rows = [
        {
            "server": name,
            "connections": connections,
            "per_second": round(len(seconds) / wall, 1),
            **measured.percentiles(seconds),
        }
        for (name, connections), (seconds, wall) in sorted(taken.items(), key=lambda item: item[0][1])
    ]
    return {"requests": rows}


async def _load(port: int, connections: int, requests: int) -> tuple[list[float], float]:
    """Seconds of each request and of the whole; any answer but 200 is an error."""
    import aiohttp

    url = URL.format(host=services.HOST, port=port)
    chosen = random.Random(connections)
    bodies = [json.dumps({"instances": [{"customer_id": chosen.randint(1, 23_000)}]}) for _ in range(requests)]
    waiting = iter(bodies)
    seconds: list[float] = []

    async def client(session: aiohttp.ClientSession) -> None:
        for body in waiting:
            begun = time.perf_counter()
            async with session.post(url, data=body, headers={"Content-Type": "application/json"}) as answer:
                text = await answer.text()
                if answer.status != 200:
                    raise RuntimeError(f"{url}: {answer.status} {text[:200]}")
            seconds.append(time.perf_counter() - begun)

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=connections)) as session:
        begun = time.perf_counter()
        await asyncio.gather(*(client(session) for _ in range(connections)))
        return seconds, time.perf_counter() - begun


@contextmanager
def _given() -> Iterator[int]:
    """The port of the same server whose features come from memory, for as long as it is needed."""
    port = services.free_port()
    server = subprocess.Popen(
        [sys.executable, "-m", "bench.predictions", str(port)], cwd=ROOT, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 60
        while not services.answers(f"http://{services.HOST}:{port}/v2/models/churn-predictor/ready", 2):
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("the server with given features did not come up")
            time.sleep(0.2)
        yield port
    finally:
        server.terminate()
        server.wait(timeout=30)


def _serve_given(port: int) -> None:
    """The predictor, its online reads answered by a table in memory: everything else is the same."""
    from serving import server
    from serving.churn import scorer
    from serving.features import FeatureRow, OnlineFeatures

    class Given(OnlineFeatures):
        def __init__(self, product: Product, service: str) -> None:
            super().__init__(product, service)
            self._rows: dict[int, FeatureRow] = {}
            for start in range(1, 23_001, 1000):
                self._rows |= {row.key: row for row in super().read(list(range(start, start + 1000)))}

        def read(self, customers: list[int], now: datetime | None = None) -> list[FeatureRow]:
            return [self._rows[customer] for customer in customers]

    vars(scorer)["OnlineFeatures"] = Given
    with socket.socket() as probe:
        probe.bind((services.HOST, 0))
        grpc_port = probe.getsockname()[1]
    server.serve(CHURN, port=port, grpc_port=grpc_port)


if __name__ == "__main__":
    _serve_given(int(sys.argv[1]))
