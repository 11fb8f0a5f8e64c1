"""What a rollout is at, as an object: `rollouts/<product>/<number>.json`, whole at any moment.

The newest of a product is the current rollout. Only its driver writes it. The driver holds a file lock while it lives,
which the kernel opens when it dies: so a rollout that says Progressing and whose lock is free was left by a killed
driver. The lock is this machine's, for so are the driver and the two predictors between which it divides requests.
Others ask the driver for something by an object of their own.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from plumbline import clock, files
from plumbline.errors import Conflict
from plumbline.product import Product
from plumbline.settings import settings
from plumbline.state import objects

Phase = Literal["Progressing", "Paused", "Promoting", "Healthy", "Aborted"]
ACTIVE: tuple[Phase, ...] = ("Progressing", "Paused", "Promoting")
NUMBERED = re.compile(r".*/\d+\.json")
ABORT, PROMOTE, FULL, REPLACE = "abort", "promote", "full", "replace"
"""What can be asked of a driver: weights back; go on from a pause; skip what is left; another version instead."""


@dataclass
class Status:
    """One rollout. `samples` are what was seen each second or two, `measurements` what the analyses measured."""

    product: str
    number: int
    stable: dict[str, str]
    canary: dict[str, str]
    steps: list[str]
    args: dict[str, str]
    begun_at: str = field(default_factory=lambda: clock.wall().isoformat())
    ended_at: str | None = None
    phase: Phase = "Progressing"
    message: str = "starting the canary"
    step: int = 0
    weight: int = 0
    exposed: int = 0
    traffic: str | None = None
    weights: list[dict[str, Any]] = field(default_factory=list)
    measurements: list[dict[str, Any]] = field(default_factory=list)
    samples: list[dict[str, Any]] = field(default_factory=list)

    @property
    def active(self) -> bool:
        return self.phase in ACTIVE

    def save(self) -> None:
        """Writes it whole, in one step."""
        objects.replace_json(f"{_folder(self.product)}/{self.number:04d}.json", asdict(self))


def keys(product: Product) -> list[str]:
    """The keys of all of a product's rollouts, oldest first."""
    return [key for key in objects.keys(_folder(product.name)) if NUMBERED.fullmatch(key)]


def everyone(product: Product) -> list[Status]:
    """All of them, oldest first."""
    return [found for key in keys(product) if (found := _read(product, key)) is not None]


def newest(product: Product) -> Status | None:
    """The current or last rollout, None before the first."""
    known = keys(product)
    return _read(product, known[-1]) if known else None


def next_number(product: Product) -> int:
    """One more than the newest."""
    found = newest(product)
    return found.number + 1 if found else 1


def command(product: Product, what: str) -> str:
    """What a person types, as in `plumb rollout abort --product images`; the product whose stages are commands of
    their own need not be named."""
    return f"plumb rollout {what}{f' --product {product.name}' if product.command else ''}"


def home(product: Product) -> Path:
    """The folder of what a rollout's driver and servers leave on this machine."""
    return settings().home / "rollout" / product.name


def driving(product: Product, wait: bool = False) -> Any:
    """The lock that a driver holds for as long as it lives. Raises Conflict when another does."""
    return files.locked(home(product) / "driver.lock", wait=wait, held="a rollout is under way")


def driven(product: Product) -> bool:
    """Whether a driver lives."""
    try:
        with driving(product):
            return False
    except Conflict:
        return True


def ask(product: Product, what: str, **more: str) -> None:
    """Asks the living driver for something; it looks a few times a second."""
    objects.replace_json(_asked(product), {"what": what, **more})


def asked(product: Product) -> dict[str, Any] | None:
    """What was asked, once; None mostly."""
    found = objects.read_json(_asked(product))
    if found is not None:
        forget(product)
    return found


def forget(product: Product) -> None:
    """Drops what was asked of an earlier driver."""
    objects.delete(_asked(product))


def _read(product: Product, key: str) -> Status | None:
    """A rollout; one from before there were several products does not name its own."""
    told = objects.read_json(key)
    return Status(**{"product": product.name, **told}) if told is not None else None


def _folder(product: str) -> str:
    return f"rollouts/{product}"


def _asked(product: Product) -> str:
    return f"rollout/{product.name}/asked.json"
