"""Simulated callers of the churn predictor: real customers are asked about, and respond as `simulated_responses` says.

The campaign acts on the score in the answer, and the customer responds to that action and to what they really did.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from plumb.demo.simulated_responses import SEED
from plumb.demo.simulation import known_customers, outcome, really_ordered
from plumbline import clock
from products.churn import CHURN
from serving.churn import outcomes


@dataclass
class Callers:
    """See simulated_traffic.Callers. `customers` are asked about, by default those of the release in force."""

    customers: Sequence[int] = ()
    seed: int = SEED
    product = CHURN

    def begin(self) -> Sequence[int]:
        known, day = list(self.customers) or known_customers(), outcomes.day(clock.now())
        asked = [{"customer_id": customer, "day": day} for customer in known]
        self._really = dict(zip(known, really_ordered(asked), strict=True))
        return known

    def instance(self, number: int, who: int) -> dict[str, Any]:
        return {"customer_id": who}

    def outcome(self, request_id: str, prediction: dict[str, Any]) -> dict[str, Any]:
        customer, action = prediction["customer_id"], outcomes.action(prediction["churn_probability"])
        return outcome(request_id, customer, action, self._really[customer], self.seed)

    def record(self, rows: list[dict[str, Any]]) -> None:
        outcomes.append(rows, new=True)


def made_up(version: int | None, seed: int) -> list[dict[str, Any]]:
    """The outcomes of the logged predictions, up to that version of the log, that have none yet."""
    waiting = outcomes.awaiting(version)
    return [
        outcome(row["request_id"], row["customer_id"], row["action"], really, seed)
        for row, really in zip(waiting, really_ordered(waiting), strict=True)
    ]
