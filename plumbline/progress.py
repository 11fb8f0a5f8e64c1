"""Lines that say what a command is at, on standard error, so that standard output stays for results."""

from __future__ import annotations

import sys


def say(text: str) -> None:
    """One line of progress. Anything that takes over three seconds says so before it starts."""
    print(f"  · {text}", file=sys.stderr, flush=True)


def warn(text: str) -> None:
    """Something the reader should know that did not stop the command."""
    print(f"  ! {text}", file=sys.stderr, flush=True)
