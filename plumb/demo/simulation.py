"""What the demo has to make up: requests to the predictor, and what customers did after them. Both say so.

Requests are real ones, over HTTP, for real customers; that anybody wanted to know is simulated, and each request id
begins with `simulated-`. Outcomes are `simulated_responses` to the action that a score led to, and to what the
customer really did in the 90 days after the request, by CDNOW's own file, which reaches beyond a lake that ends
earlier. Where the file ends before those 90 days do, as after the whole demo, the last 90 days that it has stand in:
the window that the model was tested on. Each outcome names its window.
"""

from __future__ import annotations

import pkgutil
import random
import statistics
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from typing import Any

from ingestion.churn import cdnow
from plumb.demo import demo
from plumb.demo.simulated_responses import SEED, respond
from plumbline import clock, observed, shop
from plumbline.errors import PlumblineError
from plumbline.lake import tables as lake
from plumbline.pipeline import leases, stage
from plumbline.product import Product
from plumbline.progress import say
from plumbline.servers import services
from plumbline.settings import settings
from plumbline.state import releases
from products.churn import LOG
from serving import client, shelf
from serving.churn.outcomes import Action
from training.churn import labels

MARK = "simulated-"
LOGGED_WITHIN = 30.0
"""Seconds that the predictor has to write what it answered; it does so every 5."""

EPOCH = date(1970, 1, 1)


class SimulationError(PlumblineError):
    """Nothing can be simulated here."""


def traffic(requests: int, seed: int = SEED, seconds: float = 0.0) -> dict[str, object]:
    """Asks the running predictor for `requests` customers of the release in force, one each, chosen by the seed.

    Spread over `seconds`, or as fast as one client can. Returns when the outcome log has the answers. Raises DemoError
    without a predictor, SimulationError when the log does not get them in time.
    """
    customers = known_customers()
    chosen = random.Random(seed).choices(customers, k=requests)  # noqa: S311
    run = run_id(seed)
    say(f"simulated traffic: {requests:,} requests for {len(set(chosen)):,} of {len(customers):,} customers")
    statuses: Counter[int] = Counter()
    took: list[float] = []
    begun = clock.monotonic()
    for number, customer in enumerate(chosen):
        if (early := begun + seconds * number / requests - clock.monotonic()) > 0:
            time.sleep(early)
        asked = clock.monotonic()
        status, _ = client.ask(customer, request_id=f"{run}{number:06d}")
        took.append(1000 * (clock.monotonic() - asked))
        statuses[status] += 1
    _wait_for(run, statuses[200])
    return {
        "simulated": True,
        "requests": requests,
        "answers": {str(status): count for status, count in sorted(statuses.items())},
        "median_ms": round(statistics.median(took), 1),
        "request_ids": f"{run}…",
    }


def run_id(seed: int) -> str:
    """What the ids of the requests of a run that starts now begin with."""
    return f"{MARK}{seed}-{clock.wall():%Y%m%dT%H%M%S}-"


@contextmanager
def callers() -> Iterator[None]:
    """Simulated requests, four a second, for as long as it is open."""
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            traffic(40, seconds=10)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    try:
        yield
    finally:
        over.set()
        asking.join(timeout=60)


def outcomes(product: Product, seed: int = SEED) -> dict[str, object]:
    """Simulates the outcome of every logged prediction that has none yet; again, it changes nothing.

    Raises SimulationError for a shop that is not the demo's: its outcomes are to be recorded, not made up.
    """
    if product.sources and settings().shop_url is not None:
        raise SimulationError("PLUMBLINE_SHOP_URL is set: outcomes of your customers are to be recorded, not simulated")
    if lake.version(product.log) is None:
        raise SimulationError("nothing was predicted yet: `plumb up`, then `plumb simulate traffic --requests 200`")
    head = {"run_id": f"{product.name}-kpis", "stage": "simulate_outcomes"}
    with leases.lease(product, "simulate_outcomes", "simulation of outcomes"):
        told: dict[str, object] = stage.recorded(product, head, lambda: _simulated(product, seed))["simulation"]
        return told


def _simulated(product: Product, seed: int) -> dict[str, Any]:
    version = lake.version(product.log)
    rows = pkgutil.resolve_name(f"plumb.demo.simulated_{product.name}:made_up")(version, seed)
    table = shelf.outcomes(product)
    written, made = table.append(rows), lake.version(product.outcomes)
    if written:
        observed.wrote(product.outcomes, made, written)
    return {
        "message": f"{written:,} outcomes simulated",
        "read": {product.log: version},
        "wrote": {product.outcomes: made} if written else {},
        "rows": {product.outcomes: written},
        "simulation": {"simulated": True, "outcomes": written, **table.summary(rows)},
    }


def outcome(
    request_id: str, customer_id: int, action: Action, really: tuple[bool, date, date], seed: int = SEED
) -> dict[str, Any]:
    """The row of `serving.outcomes` of a customer on whom the campaign acted, by what `really_ordered` says of them."""
    ordered, start, end = really
    response = respond(customer_id, action, ordered, seed)
    return {
        "request_id": request_id,
        "customer_id": customer_id,
        "contacted": action == "contact",
        "ordered": response.ordered,
        "called_support": response.called_support,
        "handle_seconds": response.handle_seconds,
        "really_ordered": ordered,
        "window_start": start,
        "window_end": end,
        "simulated": True,
    }


def really_ordered(asked: list[dict[str, Any]]) -> list[tuple[bool, date, date]]:
    """For each asked `customer_id` and `day`: whether they ordered in the window, and its first and last day."""
    import numpy as np

    if shop.page().loader != "ingestion.churn.cdnow:load":
        raise SimulationError(f"outcomes cannot be made up for {shop.page().name}: no file says what came after")
    orders = list(cdnow.read(cdnow.packaged()))
    newest = labels.last_observable(max(order.order_date for order in orders))
    days = [min(row["day"], newest) for row in asked]
    churned = labels.churned(
        np.array([order.customer_id for order in orders], dtype=np.int64),
        np.array([(order.order_date - EPOCH).days for order in orders], dtype=np.int64),
        np.array([row["customer_id"] for row in asked], dtype=np.int64),
        np.array([(day - EPOCH).days for day in days], dtype=np.int64),
    )
    horizon = timedelta(days=labels.horizon_days())
    return [
        (not gone, day + timedelta(days=1), day + horizon) for gone, day in zip(churned.tolist(), days, strict=True)
    ]


def known_customers() -> list[int]:
    """The customers of the release in force."""
    import pyarrow.compute as pc

    version = releases.required(demo.PRODUCT).version("analytics.customers")
    found = lake.open_table("analytics.customers", version).to_pyarrow_table(columns=["customer_id"])
    return sorted(pc.unique(found["customer_id"]).to_pylist())


def _wait_for(run: str, answered: int) -> None:
    """Returns when the log holds all that was answered: whoever simulates outcomes next must find it there."""
    begun, seen = clock.monotonic(), -1
    logged = 0
    while logged < answered:
        if clock.monotonic() - begun > LOGGED_WITHIN:
            where = services.log_file("predictor")
            raise SimulationError(
                f"{answered} answers, but {LOG} has {logged} of them after {LOGGED_WITHIN} s: {where}"
            )
        time.sleep(0.2)
        if (version := lake.version(LOG)) is not None and version != seen:
            seen, ids = version, lake.open_table(LOG, version).to_pyarrow_table(columns=["request_id"])
            logged = sum(name.startswith(run) for name in ids["request_id"].to_pylist())
