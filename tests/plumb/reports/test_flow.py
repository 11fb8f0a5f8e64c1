from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from plumb.reports import flow
from plumb.reports.flow import FlowError
from plumbline.state import ledger, releases
from plumbline.state.releases import Release
from products.churn import CHURN

RUN = "churn-1998-06-29"


def test_the_picture_holds_what_the_run_was_seen_to_read_and_write(home: Path) -> None:
    with pytest.raises(FlowError, match="make demo"):
        flow.mermaid(CHURN)

    def event(stage: str, run_id: str = RUN, **more: object) -> None:
        ledger.record("churn", {"run_id": run_id, "stage": stage, "state": "COMPLETE", "as_of": "1998-06-29", **more})

    event("ingest", wrote={"raw.orders": 0})
    event("ge_check", read={"analytics.orders": 0}, gates={"orders_expectations": {"verdict": "passed"}})
    releases.publish(Release(1, "churn", date(1998, 6, 29), None, {}, {}, "code", "lock", RUN, "now"))
    event("dataset", "churn-training-1", release_id=1, data_version="delta:features.customers@v=3")
    event("train", "churn-training-1", release_id=1)

    lines = [line.strip() for line in flow.mermaid(CHURN).splitlines()]
    assert lines[0] == "flowchart LR"
    for expected in (
        "ingest ==> ge_check",
        "shop_database -.-> ingest",
        "ingest -.-> raw_orders",
        "analytics_orders -.-> ge_check",
        "class ge_check gate",
        "features_customers -.-> dataset",
        'raw_orders[("raw.orders")]',
    ):
        assert expected in lines
    assert not any("release" in line for line in lines), "a stage that did not run is not drawn"
