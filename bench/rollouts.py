"""Rollouts that are simulated for `make study`: a stream of requests and outcomes, read by the judge and by two others.

Requests draw real CDNOW customers; whether they ordered is real, what they answered to a campaign is simulated.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from functools import cache
from itertools import starmap
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

from plumb.demo.simulated_responses import SEED, respond
from products.churn import CHURN
from serving.judge.verdicts import WINDOW, Answer, Judge, Outcome, levels
from serving.rollout import manifests

if TYPE_CHECKING:
    from numpy.random import Generator
    from numpy.typing import NDArray

KPIS = {kpi.name: kpi.worse for kpi in CHURN.kpis}

PER_SECOND = 12
"""Requests. At 10 % that is 144 in two minutes: just what the traffic's guardrail lets pass."""

LOOK = 5
"""Seconds from one look to the next."""

LONGEST = 100_000
"""Requests after which a worse canary counts as never found."""

METHODS = {
    "judge": "the judge",
    "threshold": "a fixed threshold",
    "z": "a z-test at every look",
}
EPOCH, NEVER = date(1970, 1, 1), math.inf
SECONDS = {"s": 1, "m": 60, "h": 3600}


RAMP = (0.10, 0.25, 0.50)
"""The canary's share of the requests, step by step, as in the Rollout."""


@dataclass(frozen=True)
class Late:
    """Seconds after which an event is known, and after which its absence is."""

    event: float = 15.0
    absence: float = 15.0


@dataclass(frozen=True)
class Scenario:
    """What is the matter with a canary and its traffic.

    `factor` multiplies the canary's rate of each KPI's event, `drift` all rates, from the ramp's start to its end. With
    a `kpi` the canary stays at the ramp's last share until that KPI aborts it, or for LONGEST requests.
    """

    factor: tuple[float, float] = (1.0, 1.0)
    late: Late = Late()
    drift: tuple[float, float] = (1.0, 1.0)
    kpi: str | None = None


@dataclass
class Run:
    """Requests, of both sides and of the canary alone, until each method aborted by each KPI; NEVER without."""

    requests: dict[tuple[str, str], float] = field(default_factory=dict)
    exposed: dict[tuple[str, str], float] = field(default_factory=dict)

    def first(self, method: str) -> float:
        """Requests until the first KPI aborted."""
        return min(self.requests[method, kpi] for kpi in KPIS)


@cache
def args() -> dict[str, str]:
    """The args of the shipped templates that have a value."""
    return manifests.defaults(manifests.templates(CHURN).values())


def step_seconds() -> int:
    """What one analysis takes: the warm-up, and the readings after it."""
    shipped = args()
    return _seconds(shipped["warm-up"]) + (int(shipped["count"]) - 1) * _seconds(shipped["interval"])


def _seconds(text: str) -> int:
    found = re.fullmatch(r"(\d+)([smh])", text)
    if found is None:
        raise ValueError(f"{text!r} is no time, as in 30s")
    return int(found[1]) * SECONDS[found[2]]


def population() -> NDArray[Any]:
    """Customers of CDNOW who had ordered by the last day with 90 days after it; did they order, and call support?

    The orders of those 90 days are real. Who had not ordered in the 90 days before was contacted, for a score; the
    response to that and the calls are simulated. Rows of two booleans, in the order of churn's KPIs.
    """
    import numpy as np

    from ingestion.churn import cdnow as shop
    from training.churn import labels

    orders = list(shop.read(shop.packaged()))
    days = np.array([(order.order_date - EPOCH).days for order in orders])
    customers = np.array([order.customer_id for order in orders])
    day = (labels.last_observable(max(order.order_date for order in orders)) - EPOCH).days
    asked = np.unique(customers[days <= day])
    recent = set(customers[(days > day - labels.horizon_days()) & (days <= day)].tolist())
    churned = labels.churned(customers, days, asked, np.full(len(asked), day))
    found = []
    for customer, gone in zip(asked.tolist(), churned.tolist(), strict=True):
        response = respond(customer, "none" if customer in recent else "contact", not gone, SEED)
        found.append((response.ordered, response.called_support))
    return np.array(found)


def run(people: NDArray[Any], scenario: Scenario, rng: Generator) -> Run:
    """One rollout, looked at every LOOK seconds from the end of the first warm-up on, by all methods."""
    found = Run()
    judge = Judge(levels(manifests.kpis(CHURN)), CHURN.kpis)
    naive = _Naive(judge.level, float(args()["effect"]), int(args()["min-requests"]))
    answered, exposed, warm_up = 0, 0, _seconds(args()["warm-up"])
    for look, answers, outcomes, canaries in _stream(people, scenario, rng):
        judge.read(answers, outcomes)
        naive.read(outcomes)
        answered, exposed = answered + len(answers), exposed + canaries
        if look < warm_up:
            continue
        p_values = judge.p_values()
        verdicts = {
            ("judge", kpi): p_values.get((kpi, "new", "old"), 1.0) <= judge.level for kpi in KPIS
        } | naive.verdicts()
        for which, aborts in verdicts.items():
            if aborts and which not in found.requests:
                found.requests[which], found.exposed[which] = answered, exposed
        if scenario.kpi and (
            answered >= LONGEST or all((method, scenario.kpi) in found.requests for method in METHODS)
        ):
            break
    for method in METHODS:
        for kpi in KPIS:
            found.requests.setdefault((method, kpi), NEVER)
            found.exposed.setdefault((method, kpi), NEVER)
    return found


Look = tuple[int, list[Answer], list[Outcome], int]


def _stream(people: NDArray[Any], scenario: Scenario, rng: Generator) -> Iterator[Look]:
    """Look by look: its second, what was answered since the last, what became known, the canary's requests among them.

    The ramp's shares, with a `kpi` the last one for as long as it takes. Outcomes are recorded every LOOK seconds.
    """
    import numpy as np

    step, ramp = step_seconds(), step_seconds() * len(RAMP)
    pending: dict[float, list[Outcome]] = {}
    start, rates = 30_000_000 * WINDOW, people.mean(axis=0)
    odds = rates / (1 - rates)
    for second in range(0, ramp if scenario.kpi is None else 10**9, LOOK):
        count = PER_SECOND * LOOK
        at = second + np.sort(rng.random(count)) * LOOK
        canary = rng.random(count) < RAMP[min(second // step, len(RAMP) - 1)]
        events = people[rng.integers(len(people), size=count)]
        first, last = scenario.drift
        kept = (first + (last - first) * min(second / ramp, 1.0)) * np.where(canary[:, None], scenario.factor, 1.0)
        drawn = rng.random(events.shape)
        events = np.where(kept <= 1, events & (drawn < kept), events | (drawn < (kept - 1) * odds))
        delay = np.where(events.any(axis=1), scenario.late.event, scenario.late.absence) * rng.random(count)
        recorded = start + np.ceil((at + delay) / LOOK) * LOOK
        names = [f"{'c' if new else 's'}{second}-{number}" for number, new in enumerate(canary.tolist())]
        sides = [("new", "canary") if new else ("old", "stable") for new in canary.tolist()]
        answers = [
            Answer(name, when, *side, 0.5) for name, when, side in zip(names, (start + at).tolist(), sides, strict=True)
        ]
        for outcome in starmap(Outcome, zip(names, recorded.tolist(), map(tuple, events.tolist()), strict=True)):
            pending.setdefault(outcome.recorded, []).append(outcome)
        look = second + LOOK
        yield look, answers, pending.pop(start + look, []), int(canary.sum())


class _Naive:
    """What is compared with the judge: all that is known at a look, pooled, against a threshold."""

    def __init__(self, level: float, effect: float, least: int) -> None:
        self._effect, self._least, self._needed = effect, least, NormalDist().inv_cdf(1 - level)
        self._counts = {"c": [0, 0, 0], "s": [0, 0, 0]}

    def read(self, outcomes: list[Outcome]) -> None:
        for row in outcomes:
            mine = self._counts[row.request_id[0]]
            mine[0] += 1
            mine[1] += row.events[0]
            mine[2] += row.events[1]

    def verdicts(self) -> dict[tuple[str, str], bool]:
        """By method and KPI: a difference of over `effect` of stable's rate; a one-sided z over the level's."""
        found: dict[tuple[str, str], bool] = {}
        canary, stable = self._counts["c"], self._counts["s"]
        for number, (kpi, harm) in enumerate(KPIS.items(), start=1):
            z = relative = 0.0
            if min(canary[0], stable[0]) >= self._least and canary[number] + stable[number] > 0:
                ours, theirs = canary[number] / canary[0], stable[number] / stable[0]
                rate = (canary[number] + stable[number]) / (canary[0] + stable[0])
                spread = math.sqrt(rate * (1 - rate) * (1 / canary[0] + 1 / stable[0]))
                z = harm * (ours - theirs) / spread if spread else 0.0
                relative = harm * (ours - theirs) / theirs if theirs else math.inf
            found["threshold", kpi], found["z", kpi] = relative > self._effect, z > self._needed
        return found
