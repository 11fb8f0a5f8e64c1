"""Real orders as a mart in a fresh lake."""

from __future__ import annotations

from datetime import date

import pytest


@pytest.fixture(scope="session")
def first_week() -> list[dict]:
    """The real orders of the shop's first seven days, as rows of the mart."""
    from datetime import UTC, datetime, time

    from ingestion.churn.cdnow import packaged, read

    rows = []
    for order in read(packaged()):
        if order.order_date <= date(1997, 1, 7):
            noon = datetime.combine(order.order_date, time(12), UTC)
            stamps = {"recorded_at": noon, "known_at": noon, "loaded_at": noon, "batch_id": "first week"}
            rows.append(order.__dict__ | stamps)
    return rows
