"""The real binaries, or a sentence that says how to get them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from toolchain import binaries


@pytest.fixture(scope="session")
def binary() -> Callable[[str], Path]:
    """A binary by its name. It fails the test when it is not there."""

    def found(name: str) -> Path:
        path = binaries.find(name)
        if path is None:
            pytest.fail(binaries.HOW)
        return path

    return found
