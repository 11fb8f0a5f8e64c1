"""How on-call gets back from an alert: part of the alert's definition, filled in by `plumb incident`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from plumbline.product import Product

Kind = Literal["command", "day", "stage", "undo", "model", "runbook"]


@dataclass(frozen=True)
class WayBack:
    """The way back of an alert: its kind, the command, and a sentence for whoever is paged, with a field `{alert}`.

    `command` is empty where the kind needs to know the home: `day` brings the missing day in, `stage` too, unless the
    stage at fault is of training or of a deployment. In `undo` the fields `{release}` and `{alert}` are put in.
    `doubts_release`: what is served is itself in doubt, so the last good release is one before it. `first_day`: in a
    home that never released anything the first day is the way, even where the runbook is otherwise.
    """

    kind: Kind
    sentence: str
    command: str = ""
    doubts_release: bool = False
    first_day: bool = True


def by(command: str, *, doubts_release: bool = False) -> WayBack:
    """Where one command mends it whatever the home holds: what was published only has to be brought up again."""
    return WayBack("command", f"Way back: `{command}`.", command, doubts_release, first_day=False)


def flag(product: Product) -> str:
    """How the commands that know every product are told of this one."""
    return f" --product {product.name}" if product.command else ""


def missing_day(product: Product) -> WayBack:
    """The day that is missing is brought in."""
    return WayBack("day", _day(product))


def stage(product: Product) -> WayBack:
    """The stage that stopped goes on."""
    return WayBack("stage", _day(product) + " A stage of training or deployment: the runbook.")


def undo(product: Product) -> WayBack:
    """An older release is put in force."""
    return WayBack(
        "undo",
        f"Way back: undo the release. `plumb incident {{alert}}{flag(product)}` prints the command, with the release "
        "to go back to.",
        f'plumb releases undo --to {{release}} --why "{{alert}}"{flag(product)}',
        doubts_release=True,
    )


def model(product: Product) -> WayBack:
    """The model that served before serves again."""
    back = f"{product.command_of('deploy')} --model previous"
    sentence = f"Way back: `{back}`. Without a previous model: the runbook."
    return WayBack("model", sentence, back, first_day=False)


def _day(product: Product) -> str:
    prints = f"`plumb incident {{alert}}{flag(product)}`"
    return f"Way back: mend what stopped the day, then run the command that {prints} prints."


RUNBOOK = WayBack("runbook", "No one command is the way back: read the runbook.", first_day=False)
FIRST_DAY_OR_RUNBOOK = WayBack("runbook", RUNBOOK.sentence, first_day=True)
