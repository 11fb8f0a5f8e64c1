"""Business KPIs: the dbt model `analytics.business_kpis`, built from serving's log and outcomes at pinned versions.

No stage of the daily run: nothing in a release depends on it. Its dbt files are in `<home>/dbt/business`, apart from
the daily run's, whose project it is disabled in.
"""

from __future__ import annotations

import json
from typing import Any

from plumbline import causes, observed
from plumbline.errors import GateFailed, PlumblineError
from plumbline.lake import tables as lake
from plumbline.lake.spark import session
from plumbline.pipeline import leases, stage
from plumbline.progress import say
from plumbline.settings import settings
from products.churn import CHURN, LOG, OUTCOMES
from products.churn import KPIS as TABLE
from transform import build as transform

SOURCES = (LOG, OUTCOMES)
ENABLED = ["--vars", "{business: true}"]


class BusinessError(PlumblineError):
    """The KPIs cannot be computed."""


def kpis() -> list[dict[str, Any]]:
    """Builds the table from the heads of log and outcomes, tests it, and gives its rows: model version, track, day.

    Made anew each time, so the same log and outcomes give the same rows. Raises BusinessError when there is nothing to
    count, GateFailed when a dbt test fails; the table is then as it was before.
    """
    pins = {table: version for table in SOURCES if (version := lake.version(table)) is not None}
    if missing := [table for table in SOURCES if table not in pins]:
        raise BusinessError(f"no {missing[0]} yet: `plumb simulate traffic`, then `plumb simulate outcomes`")
    with leases.lease(CHURN, "kpis", "kpis"):
        stage.recorded(CHURN, {"run_id": f"{CHURN.name}-kpis", "stage": "kpis"}, lambda: _build(pins))
    return sorted(
        lake.open_table(TABLE).to_pyarrow_table().to_pylist(),
        key=lambda row: (row["request_day"], row["track"], row["model_version"]),
    )


def _build(pins: dict[str, int]) -> dict[str, Any]:
    spark, before = session(writer="kpis"), lake.version(TABLE)
    say(f"dbt build of {TABLE} from {', '.join(f'{table}@v{version}' for table, version in pins.items())}")
    lake.register(spark, [TABLE])
    relations = json.dumps({table: lake.at(table, version) for table, version in pins.items()})
    with transform.variables({"PLUMB_PINS": relations}):
        build = ["build", "--select", "business_kpis", "--exclude-resource-type", "unit_test", *ENABLED]
        result = transform.invoke([*build, "--log-level", "none"], settings().home / "dbt" / "business")
    items = transform.results(result)
    if bad := [f"{item.node.name}: {item.message}" for item in items if str(item.status) in ("error", "fail")]:
        if before is not None:
            lake.restore(spark, {TABLE: before})
        told = "\n  ".join(transform.short(line) for line in bad)
        if any(str(item.status) == "error" for item in items):
            raise causes.said(told) or BusinessError(f"{TABLE} could not be built:\n  {told}")
        raise GateFailed(f"{len(bad)} dbt tests of {TABLE} failed, it stays as it was:\n  {told}")
    if not result.success or (version := lake.version(TABLE)) is None:
        raise BusinessError(f"{TABLE} could not be built: {transform.short(str(result.exception))}")
    tests = sum(str(item.node.resource_type) == "test" for item in items)
    rows = lake.rows(TABLE, version)
    observed.wrote(TABLE, version, rows)
    return {
        "message": f"{rows} rows, {tests} tests passed",
        "read": pins,
        "wrote": {TABLE: version},
        "rows": {TABLE: rows},
    }
