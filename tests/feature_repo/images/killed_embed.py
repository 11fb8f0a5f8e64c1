"""Stage 03 as a process that kills itself, as `kill -9` would, at its n-th call of a function.

`python -m tests.feature_repo.images.killed_embed FUNCTION N`: before that call, with N below 0 behind it.
"""

from __future__ import annotations

import os
import pkgutil
import signal
import sys
from typing import Any

from feature_repo.images import embed as stage
from tests.feature_repo.images import made_up_images as made

PART, COMMIT = 4, 8


def main(function: str, n: str) -> None:
    """Runs the stage; it does not come back."""
    path, _, name = function.replace(":", ".").rpartition(".")
    owner = pkgutil.resolve_name(path)
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
    stage.PART, stage.COMMIT = PART, COMMIT
    stage.embed(made.run_of(made.FIRST), ["v1", "v2"])


if __name__ == "__main__":
    main(*sys.argv[1:])
