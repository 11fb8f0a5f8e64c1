"""A workspace of terraform/ with its providers, once for all; a test that changes files asks for a copy of its own."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from plumbline.settings import ROOT
from toolchain import tofu_tools
from toolchain.tofu_tools import Workspace

sys.path.insert(0, str(ROOT / "docker" / "stack"))
sys.path.append(str(ROOT / "tests" / "cluster"))


@pytest.fixture(scope="session", autouse=True)
def _tools() -> None:
    if lacking := tofu_tools.missing():
        pytest.fail(f"{', '.join(lacking)}: not built; `make tofu-tools` builds them")


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A copy of terraform/ that a test may change."""
    return Workspace(tmp_path / "tofu")
