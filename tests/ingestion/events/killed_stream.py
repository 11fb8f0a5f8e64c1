"""`plumb events run --once` in a process that kills itself at a point: `python -m tests.ingestion.events.killed_stream
POINT`. What is at work then is the product's own code."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from ingestion.events import landing, stream

POINTS: dict[str, tuple[Any, str, bool]] = {
    "before the offsets are kept": (stream._Job, "_batch", False),
    "in mid-batch, nothing written": (landing.Landing, "_sorted_out", True),
    "events in raw, no features": (landing.Landing, "_features", False),
    "features in Delta, not in Redis": (landing.Landing, "land", True),
    "in Redis, not in the books": (landing.Landing, "book", False),
    "in the books, not in Spark's commits": (stream._Job, "_land", True),
}
"""Each with what is called there, and whether the kill comes behind it."""


def main() -> None:
    """Runs the job up to the kill."""
    owner, name, behind = POINTS[sys.argv[1]]
    original = getattr(owner, name)

    def killing(*given: Any, **more: Any) -> None:
        if behind:
            original(*given, **more)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(owner, name, killing)
    from plumb.main import main as plumb

    sys.argv = ["plumb", "events", "run", "--once"]
    plumb()


if __name__ == "__main__":
    main()
