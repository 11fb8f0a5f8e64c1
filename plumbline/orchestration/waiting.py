"""The Airflow sensor that waits until the order stream has reached the end of a run's day.

It asks `plumb events reached`, once in the worker; if the stream is behind, the triggerer asks again every half minute
and no worker waits. In an environment of pods the waiting is a pod's own: there Airflow has no `plumb`.
"""

from __future__ import annotations

import asyncio
import json
import shlex
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

from airflow.sdk import BaseSensorOperator, Context
from airflow.sdk.exceptions import AirflowFailException
from airflow.triggers.base import BaseTrigger, TriggerEvent

from plumbline import clock
from plumbline.errors import NotYet

BETWEEN = 30.0
"""Seconds between two questions."""


async def ask(command: str, day: str) -> tuple[bool, str]:
    """Whether nobody needs to wait, and the stream's own words. Raises RuntimeError when the command fails."""
    words = [*shlex.split(command), "events", "reached", "--day", day, "--json"]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*words, stdout=pipe, stderr=pipe)
    said, error = (text.decode(errors="replace") for text in await process.communicate())
    if process.returncode not in (0, NotYet.exit_code):
        raise RuntimeError(
            f"`plumb events reached --day {day}` ended with {process.returncode}: {error.strip()[-500:]}"
        )
    return process.returncode == 0, str(json.loads(said.splitlines()[-1])["message"])


class StreamTrigger(BaseTrigger):  # type: ignore[misc]  # untyped
    """Ends with `reached` when the stream has reached the end of the day, with `late` when the time is up."""

    def __init__(self, command: str, day: str, seconds: float, between: float) -> None:
        super().__init__()
        self.command, self.day, self.seconds, self.between = command, day, seconds, between

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """What another process makes it of; one that takes it up again waits the whole time anew."""
        given = {"command": self.command, "day": self.day, "seconds": self.seconds, "between": self.between}
        return f"{__name__}.{type(self).__name__}", given

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """One event, at the end."""
        until = clock.monotonic() + self.seconds
        while True:
            over, message = await ask(self.command, self.day)
            if over or clock.monotonic() >= until:
                yield TriggerEvent({"state": "reached" if over else "late", "message": message})
                return
            await asyncio.sleep(min(self.between, max(0.0, until - clock.monotonic())))


class StreamReached(BaseSensorOperator):  # type: ignore[misc]  # untyped
    """Passes when the stream has reached the end of the day, or where none ever ran; fails when `timeout` is over, with
    what lags."""

    template_fields = ("day",)

    def __init__(self, *, command: str, day: str, between: float = BETWEEN, **operator: Any) -> None:
        super().__init__(poke_interval=between, **operator)
        self.command, self.day, self.between = command, day, between

    def execute(self, context: Context) -> None:
        """Asks once, and leaves the rest to the triggerer."""
        over, message = asyncio.run(ask(self.command, self.day))
        self.log.warning("%s: %s", self.day, message)
        if not over:
            seconds = float(self.timeout)
            trigger = StreamTrigger(self.command, self.day, seconds, self.between)
            # The trigger ends by itself and says what lags; Airflow's own limit is for one that was lost.
            self.defer(trigger=trigger, method_name="ended", timeout=timedelta(seconds=2 * seconds + 60))

    def ended(self, context: Context, event: dict[str, str]) -> None:
        """Goes on from the trigger's event."""
        if event["state"] != "reached":
            within = timedelta(seconds=float(self.timeout))
            raise AirflowFailException(
                f"the order stream did not reach the end of {self.day} within {within}: {event['message']}. Look "
                "whether `plumb events run` is at work, then clear this task"
            )
        self.log.warning("%s: %s", self.day, event["message"])
