"""What a rollout is at, as an object: `rollouts/<product>/<number>.json`, whole at any moment.

The newest of a product is the current rollout. Only its driver writes it. The driver holds a file lock while it lives,
which the kernel opens when it dies: so a rollout that says Progressing and whose lock is free was left by a killed
driver. The lock is this machine's, for so are the driver and the two predictors between which it divides requests.
Others ask the driver for something by an object of their own.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from plumbline import clock, files
from plumbline.errors import Conflict
from plumbline.settings import settings
from plumbline.state import objects
from products.churn import CHURN

Phase = Literal["Progressing", "Paused", "Promoting", "Healthy", "Aborted"]
ACTIVE: tuple[Phase, ...] = ("Progressing", "Paused", "Promoting")
FOLDER, ASKED = f"rollouts/{CHURN.name}", "rollout/asked.json"
NUMBERED = re.compile(r".*/\d+\.json")
ABORT, PROMOTE, FULL, REPLACE = "abort", "promote", "full", "replace"
"""What can be asked of a driver: weights back; go on from a pause; skip what is left; another version instead."""


@dataclass
class Status:
    """One rollout. `samples` are what was seen each second or two, `measurements` what the analyses measured."""

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
        objects.replace_json(f"{FOLDER}/{self.number:04d}.json", asdict(self))


def keys() -> list[str]:
    """The keys of all rollouts, oldest first."""
    return [key for key in objects.keys(FOLDER) if NUMBERED.fullmatch(key)]


def everyone() -> list[Status]:
    """All rollouts, oldest first."""
    return [Status(**told) for told in map(objects.read_json, keys()) if told is not None]


def newest() -> Status | None:
    """The current or last rollout, None before the first."""
    known = keys()
    told = objects.read_json(known[-1]) if known else None
    return Status(**told) if told is not None else None


def next_number() -> int:
    """One more than the newest."""
    found = newest()
    return found.number + 1 if found else 1


def driving(wait: bool = False) -> Any:
    """The lock that a driver holds for as long as it lives. Raises Conflict when another does."""
    return files.locked(settings().home / "rollout" / "driver.lock", wait=wait, held="a rollout is under way")


def driven() -> bool:
    """Whether a driver lives."""
    try:
        with driving():
            return False
    except Conflict:
        return True


def ask(what: str, **more: str) -> None:
    """Asks the living driver for something; it looks a few times a second."""
    objects.replace_json(ASKED, {"what": what, **more})


def asked() -> dict[str, Any] | None:
    """What was asked, once; None mostly."""
    found = objects.read_json(ASKED)
    if found is not None:
        forget()
    return found


def forget() -> None:
    """Drops what was asked of an earlier driver."""
    objects.delete(ASKED)
