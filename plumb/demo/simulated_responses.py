"""How a customer answers a campaign, SIMULATED: no campaign was run and nobody called anyone.

The one input that is real is what the customer did: whether they ordered in the window that stands behind the answer.
`respond` is given the customer, the action and that, and nothing else, so that no answer can depend on the model's
version or track: two versions that act alike on the same customers get the same answers, to the second.

The rates are assumptions, chosen so that a model that picks the wrong customers costs conversions and calls. They say
nothing about CDNOW's customers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from hashlib import sha256
from statistics import NormalDist

from serving.churn.outcomes import Action

SEED = 1997
WON_BACK = 0.10
"""Of those who would not have ordered, the share that a contact brings back. Published win-back rates are of that
order; a real one has to be measured."""

CALLS = {("none", True): 0.04, ("none", False): 0.04, ("contact", True): 0.16, ("contact", False): 0.08}
"""The share that calls support, by action and whether they would have ordered anyway: an offer raises questions, and
most with those who were about to pay the full price."""

HANDLE_SECONDS, SPREAD, ABOUT_AN_OFFER = 240.0, 0.5, 1.3
"""Median length of a call, the standard deviation of its logarithm, and how much longer one about an offer takes."""


@dataclass(frozen=True)
class Response:
    """What a customer did after an action; `handle_seconds` is the length of the support call, None without one."""

    ordered: bool
    called_support: bool
    handle_seconds: float | None


def respond(customer_id: int, action: Action, ordered: bool, seed: int) -> Response:
    """A customer's response to an action; `ordered` is whether they really ordered. The same input, the same response.

    A customer's draws do not depend on the action, so that contacting one can only win an order, never lose one.
    """
    contacted = action == "contact"
    called = _draw(customer_id, "calls", seed) < CALLS[action, ordered]
    return Response(
        ordered=ordered or (contacted and _draw(customer_id, "won back", seed) < WON_BACK),
        called_support=called,
        handle_seconds=_seconds(customer_id, contacted, seed) if called else None,
    )


def _seconds(customer_id: int, contacted: bool, seed: int) -> float:
    deviation = NormalDist().inv_cdf(_draw(customer_id, "handle time", seed))
    return round(HANDLE_SECONDS * math.exp(SPREAD * deviation) * (ABOUT_AN_OFFER if contacted else 1.0), 1)


def _draw(customer_id: int, what: str, seed: int) -> float:
    """A number in (0, 1), uniform over customers, from a hash: the same on every machine and in any order."""
    digest = sha256(f"{seed}:{customer_id}:{what}".encode()).digest()
    return (int.from_bytes(digest[:8], "big") + 0.5) / 2**64
