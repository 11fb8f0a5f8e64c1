"""What a stack does by itself between rollouts: stable serves the registry's champion, and a rollout whose driver was
killed is brought to an end."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from plumbline.errors import Conflict, PlumblineError
from plumbline.product import Product
from plumbline.progress import say, warn
from plumbline.registry import signing, trusted_models
from plumbline.state import slots
from plumbline.state.slots import STABLE, Slot
from serving import loaded_model as registry
from serving.rollout import driver, state
from serving.rollout.stack import Stack

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

EVERY = 3.0
"""Seconds from one look to the next."""


def attend(product: Product) -> None:
    """Looks every few seconds, until SIGTERM. What fails is said once and tried again."""
    told = ""
    while True:
        try:
            look(product)
            told = ""
        except Conflict:  # a rollout is under way: its driver sees to everything
            told = ""
        except PlumblineError as error:
            if str(error) != told:
                warn(told := str(error))
        time.sleep(EVERY)


def _same(slot: Slot, champion: ModelVersion) -> bool:
    """Whether it is this version, by the signature that it has now: one with another key's must start without it."""
    bundle = champion.tags.get(trusted_models.SIGNATURE)
    return slot.version == str(champion.version) and bundle is not None and slot.signature == signing.packed(bundle)


def look(product: Product) -> None:
    """One look. Raises Conflict while a rollout is under way, ServingError as long as there is no champion."""
    driver.recover(product)
    champion, slot = registry.find(product, registry.CHAMPION), slots.read(product, STABLE)
    if champion is None or (slot is not None and _same(slot, champion)):
        return
    with state.driving(product):
        say(f"stable serves version {champion.version} from now on")
        Stack.of(product).up()
