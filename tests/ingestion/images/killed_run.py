"""Stage 01 or 02 as a process that kills itself, as `kill -9` would, at its n-th call of a function.

`python -m tests.ingestion.images.killed_run STAGE DAY SOURCE FUNCTION N`: before that call, with N below 0 behind it.
"""

from __future__ import annotations

import os
import pkgutil
import signal
import sys
from datetime import date
from typing import Any

from tests.ingestion.images import conftest


def main(stage: str, day: str, source: str, function: str, n: str) -> None:
    """Runs the stage; it does not come back."""
    module, _, name = function.partition(":")
    owner = pkgutil.resolve_name(module)
    original, calls = getattr(owner, name), 0

    def counted(*given: Any, **more: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == int(n):
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*given, **more)
        if calls == -int(n):
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, counted)
    if stage == "ingest":
        conftest.landed(source, date.fromisoformat(day))
    else:
        conftest.cleaned(date.fromisoformat(day))


if __name__ == "__main__":
    main(*sys.argv[1:])
