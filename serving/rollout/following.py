"""A rollout that another command drives: watched, and asked for something."""

from __future__ import annotations

import time

from plumbline import clock
from plumbline.product import Product
from serving.rollout import driver, machinery, state, table
from serving.rollout.errors import RolloutError
from serving.rollout.state import Status

HEARD_WITHIN = 60.0
"""Seconds that a driver has to do what was asked: an abort waits for the canary's last request and its end."""


def follow(product: Product) -> Status | None:
    """Shows a product's newest rollout until it has ended; None when there was none."""
    found = driver.recover(product)
    driven = machinery.of(product)
    with table.live() as shown:
        while found is not None and found.active:
            shown(found, driven)
            time.sleep(0.3)
            found = driver.recover(product)
        if found is not None:
            shown(found, driven)
    return found


def ask(product: Product, what: str, **more: str) -> Status | None:
    """Asks the driver of a product's rollout that is under way, and waits until it has heard; how it stands then.

    None when none is under way (one whose driver was killed is ended by asking). Raises RolloutError when the driver
    does not hear.
    """
    found = driver.recover(product)
    if found is None or not found.active:
        return None
    before = (found.phase, found.step, found.number)
    state.ask(product, what, **more)
    deadline = clock.monotonic() + HEARD_WITHIN
    while (now := state.newest(product)) is not None and now.active and (now.phase, now.step, now.number) == before:
        if clock.monotonic() > deadline:
            raise RolloutError(f"the driver of rollout {found.number} has not done {what} in {HEARD_WITHIN:.0f} s")
        time.sleep(0.2)
    return now
