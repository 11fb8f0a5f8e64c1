"""Modules of tests/cluster are found by their names; what failed is said at once, since the rest takes long."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "cluster"))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.failed:
        print(f"\n{report.nodeid} failed:\n{report.longreprtext[-3000:]}", flush=True)
