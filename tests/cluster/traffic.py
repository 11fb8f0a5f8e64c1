"""Steady simulated callers through Envoy, and what the customers did afterwards, simulated from what they are.

The campaign acts on a score, never on a version: `simulated_responses` answers, and the outcomes are appended
to the table that the judge reads.
"""

from __future__ import annotations

import random
import statistics
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import Any

import httpx
from world import CUSTOMERS, NOW, leaves

from plumb.demo.simulated_responses import SEED, respond
from plumb.demo.simulation import MARK
from plumbline import clock
from plumbline.lake import tables as lake
from plumbline.servers.services import HOST
from serving.churn import outcomes

RATE = 30.0
"""Requests a second."""

EACH = 8
"""Customers a request."""

CALLERS = 8

PATH = "/v1/models/churn-predictor:predict"


@dataclass(frozen=True)
class Asked:
    """One request: when (monotonic seconds), how long (ms), HTTP's status (0: none) and the version that answered."""

    at: float
    ms: float
    status: int
    version: str | None
    why: str = ""


class Callers:
    """Asks until it is stopped. `asked` grows in the order of the answers."""

    def __init__(self, port: int) -> None:
        self.asked: list[Asked] = []
        self._url = f"http://{HOST}:{port}{PATH}"
        self._over = threading.Event()
        self._answers: deque[tuple[str, list[dict[str, Any]]]] = deque()
        self._lock = threading.Lock()
        self._next = time.monotonic()
        self._number = 0
        self._threads = [threading.Thread(target=self._ask, args=(i,), daemon=True) for i in range(CALLERS)]
        self._threads.append(threading.Thread(target=self._record, daemon=True))

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(10)

    def since(self, begun: float, until: float | None = None) -> list[Asked]:
        """What was asked from a moment on."""
        return [one for one in list(self.asked) if one.at >= begun and (until is None or one.at < until)]

    def _ask(self, caller: int) -> None:
        rng = random.Random(caller)
        with httpx.Client(timeout=5) as client:
            while not self._over.is_set():
                with self._lock:
                    self._number, number = self._number + 1, self._number
                    self._next = max(self._next + 1 / RATE, time.monotonic() - 0.5)
                    early = self._next - time.monotonic()
                if early > 0:
                    self._over.wait(early)
                self._one(client, f"{MARK}cluster-{number:07d}", rng.sample(CUSTOMERS, EACH))

    def _one(self, client: httpx.Client, request_id: str, customers: list[int]) -> None:
        body = {"instances": [{"customer_id": customer} for customer in customers]}
        begun = time.monotonic()
        try:
            answer = client.post(self._url, json=body, headers={"x-request-id": request_id})
            status, told = answer.status_code, answer.json() if answer.status_code == 200 else {}
            why = "" if status == 200 else answer.text[:200]
        except (httpx.HTTPError, ValueError) as error:
            status, told, why = 0, {}, f"{type(error).__name__}: {error}"
        self.asked.append(Asked(begun, 1000 * (time.monotonic() - begun), status, told.get("model_version"), why))
        if told:
            self._answers.append((request_id, told["predictions"]))

    def _record(self) -> None:
        """Appends the outcomes of what was answered, every second: before a predictor's rows reach the outcome log."""
        import pyarrow as pa
        from deltalake import write_deltalake

        while not self._over.wait(1.0):
            rows = []
            while self._answers:
                request_id, predictions = self._answers.popleft()
                rows += [_outcome(request_id, row["customer_id"], row["churn_probability"]) for row in predictions]
            if rows:
                table = pa.Table.from_pylist(rows, schema=outcomes.schema())
                write_deltalake(lake.uri(outcomes.TABLE), table, mode="append", configuration=lake.KEEP_LOG)


def p99(asked: list[Asked]) -> float:
    """The 99th percentile of what answers took, in milliseconds; NaN without any."""
    took = sorted(one.ms for one in asked if one.status == 200)
    return statistics.quantiles(took, n=100)[98] if len(took) > 1 else float("nan")


def _outcome(request_id: str, customer: int, score: float) -> dict[str, Any]:
    action = outcomes.action(score)
    response = respond(customer, action, not leaves(customer), SEED)
    return {
        "request_id": request_id,
        "customer_id": customer,
        "contacted": action == "contact",
        "ordered": response.ordered,
        "called_support": response.called_support,
        "handle_seconds": response.handle_seconds,
        "really_ordered": not leaves(customer),
        "window_start": NOW.date(),
        "window_end": NOW.date(),
        "simulated": True,
        "recorded_at": clock.wall(),
    }
