"""What failed is said at once: the rest of the run takes half an hour."""

from __future__ import annotations

import pytest


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.failed:
        print(f"\n{report.nodeid} failed:\n{report.longreprtext[-2000:]}", flush=True)
