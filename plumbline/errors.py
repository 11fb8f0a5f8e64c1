"""What can go wrong, and the exit code that tells a scheduler which kind it was.

Every error says what was found, what was expected and what to do next; the CLI prints it without a traceback.
"""

from __future__ import annotations

from typing import ClassVar


class PlumblineError(Exception):
    """Something the operator can mend. Rooms raise their own subclass."""

    exit_code: ClassVar[int] = 1


class SettingsError(PlumblineError):
    """A setting is unknown, malformed or contradicts another one."""

    exit_code = 2


class GateFailed(PlumblineError):
    """A gate stopped the line: nothing downstream may run, and a retry with the same data cannot help.

    `sets_aside` says whether the raw batch of the daily run that failed is set aside. False where the code is at fault
    and not what landed: what the run has so far stays, and once the code is mended the stage runs again.
    """

    exit_code = 3

    def __init__(self, message: str, *, sets_aside: bool = True) -> None:
        super().__init__(message)
        self.sets_aside = sets_aside


class Unreadable(PlumblineError, ValueError):
    """A file of the home does not hold what it must; the message names it."""


class ServiceUnavailable(PlumblineError):
    """A service the command needs is not reachable (Spark, Redis, MLflow, the shop database)."""

    exit_code = 4


class Conflict(PlumblineError):
    """Another run holds the lease, or a release was published since this run pinned its base."""

    exit_code = 5


class NotYet(PlumblineError):
    """What the command needs has not happened yet; the same again later may find it."""

    exit_code = 6


EXIT_CODES: dict[int, str] = {
    0: "done, or nothing to do",
    1: "an error that its message explains",
    2: "bad settings or arguments",
    3: "a gate failed: nothing downstream may run",
    4: "a service is not reachable",
    5: "another run is in the way",
    6: "not yet: the same again later",
}
