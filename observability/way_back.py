"""How on-call gets back from an alert: part of the alert's definition, filled in by `plumb incident`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

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


_DAY = "Way back: mend what stopped the day, then run the command that `plumb incident {alert}` prints."

MISSING_DAY = WayBack("day", _DAY)
STAGE = WayBack("stage", _DAY + " A stage of training or deployment: the runbook.")
UNDO = WayBack(
    "undo",
    "Way back: undo the release. `plumb incident {alert}` prints the command, with the release to go back to.",
    'plumb releases undo --to {release} --why "{alert}"',
    doubts_release=True,
)
MODEL = WayBack(
    "model",
    "Way back: `plumb deploy --model previous`. Without a previous model: the runbook.",
    "plumb deploy --model previous",
    first_day=False,
)
RUNBOOK = WayBack("runbook", "No one command is the way back: read the runbook.", first_day=False)
FIRST_DAY_OR_RUNBOOK = WayBack("runbook", RUNBOOK.sentence, first_day=True)
