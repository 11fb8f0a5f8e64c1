"""CONTRIBUTING.md, held to its word: each of its additions, done in a copy of the tree, touches these files alone."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import tree as trees

DAY = "1997-01-03"
NOW = "1997-01-04T00:00:00Z"

LEVELS = """team:
  name: shop
  members:
    - {{username: shop-data-owner, role: owner}}
support:
  - {{channel: "#shop-data", tool: slack, scope: notifications}}
slaProperties:
  - property: completeness
    value: 99.9
    unit: percent of records
    element: visit_id
    driver: operational
    description: Of what the shop records, rows with the id.
  - property: schemaNotice
    value: 7
    unit: d
    element: {dataset}
    driver: operational
    description: A breaking change is announced 7 days ahead; old and new are both written meanwhile.
"""
CONTRACT = """apiVersion: v3.1.0
kind: DataContract
id: {dataset}
name: Visits
version: 1.0.0
status: active
domain: retail
dataProduct: churn
description: {{purpose: Every visit., usage: Read at a release., limitations: None.}}
schema:
  - name: {dataset}
    physicalName: {physical}
    physicalType: table
    logicalType: object
    dataGranularityDescription: One row for each visit.
    properties:
      - {{name: visit_id, logicalType: integer, physicalType: bigint, primaryKey: true, primaryKeyPosition: 1,
         required: true, unique: true, description: The shop's number of the visit.}}
      - {{name: customer_id, logicalType: integer, physicalType: bigint, required: true, description: Who came.}}
      - {{name: {stamp}, logicalType: timestamp, physicalType: timestamp, {required}description: When it was known.}}
"""
STAGING = """sources:
  - name: raw
    schema: raw
    tables:
      - {name: visits, description: One row for each landing of a visit.}
models:
  - name: stg_visits
    description: Landed visits.
    columns:
      - {name: visit_id, description: The shop's number of the visit.}
      - {name: customer_id, description: Who came.}
      - {name: recorded_at, description: When it was known.}
      - {name: known_at, description: When it was knowable here.}
      - {name: batch_id, description: The landing window.}
      - {name: loaded_at, description: When the row landed.}
"""
MART = """models:
  - name: visits
    description: One row for each visit.
    columns:
      - name: visit_id
        description: The shop's number of the visit.
        data_tests: [unique, not_null]
      - name: customer_id
        description: Who came.
        data_tests: [not_null]
      - name: known_at
        description: When it was known.
"""
COLUMNS = "visit_id, customer_id, recorded_at, known_at, batch_id, loaded_at"

TABLE = {
    "contracts/shop.visits.odcs.yaml": CONTRACT.format(
        dataset="shop.visits", physical="visits", stamp="recorded_at", required="required: true, "
    )
    + LEVELS.format(dataset="shop.visits"),
    "contracts/analytics.visits.odcs.yaml": CONTRACT.format(
        dataset="analytics.visits", physical="analytics.visits", stamp="known_at", required=""
    )
    + LEVELS.format(dataset="analytics.visits"),
    "dbt/models/staging/stg_visits.sql": f"""{{{{ config(alias='visits') }}}}

select {COLUMNS} from {{{{ pinned('raw', 'visits') }}}}
""",
    "dbt/models/staging/stg_visits.yml": STAGING,
    "dbt/models/marts/visits.sql": "select visit_id, customer_id, known_at from {{ ref('stg_visits') }}\n",
    "dbt/models/marts/visits.yml": MART,
    "products/churn.py": ('"customers", "returns")', '"customers", "returns", "visits")'),
    "validation/churn/suites.py": (
        "SUITES: dict[str, Suite] = {\n",
        "SUITES: dict[str, Suite] = {\n"
        '    "analytics.visits": Suite(\n'
        '        lambda day, landed, new: promised("analytics.visits", day, landed), ("visit_id", "customer_id")\n'
        "    ),\n",
    ),
}
STAGE = {
    "products/churn.py": (
        '        Stage(\n            "features",\n',
        '        Stage("busy_day", DAILY, also=(ORDERS,), work="validation.churn.busy:check", about="Count orders."),\n'
        '        Stage(\n            "features",\n',
    ),
    "validation/churn/busy.py": '''"""How many orders there are."""

from plumbline.lake import tables as lake
from plumbline.pipeline.stage import StageRun
from products.churn import ORDERS


def check(run: StageRun) -> str:
    """Counts them."""
    return f"{lake.rows(ORDERS, run.pin(ORDERS))} orders"
''',
}
ALERT = {
    "observability/house_rules.py": (
        '        Alert(\n            "ParityBroken",',
        '        Alert(\n            "ReplayInForce",\n            "plumbline_replay == 1",\n            "ticket",\n'
        '            owner,\n            "the clock is a replay\'s",\n            RUNBOOK,\n'
        "            affected_by(product, first),\n        ),\n"
        '        Alert(\n            "ParityBroken",',
    ),
    "docs/runbooks/ReplayInForce.md": """# ReplayInForce

**What it means.** The clock is fixed by a setting.

**Who is hurt.** Nobody.

## See it

```sh
plumb settings
```

## Stop the bleeding

Nothing to stop.

## Recover

Unset `PLUMBLINE_NOW`.

**Tried:** in the test of additions.
""",
}
FEATURE = {
    "feature_repo/churn/jobs/customers.sql": (
        "    CAST(units_total AS INT) AS units_total,\n",
        "    CAST(units_total AS INT) AS units_total,\n"
        "    CAST(units_total / nullif(orders_total, 0) AS FLOAT) AS units_an_order,\n",
    ),
    "feature_repo/churn/definitions.py": (
        '        Field(name="days_between_orders"',
        '        Field(name="units_an_order", dtype=Float32, description="Units per order, over all orders."),\n'
        '        Field(name="days_between_orders"',
    ),
    "contracts/features.customers.odcs.yaml": (
        "      - name: days_between_orders\n",
        "      - name: units_an_order\n        logicalType: number\n        physicalType: float\n"
        "        description: Units per order, over all orders.\n      - name: days_between_orders\n",
    ),
}
GENERATED = (
    "docs/contracts.md",
    "observability/prometheus/",
    "observability/alertmanager/",
    "observability/grafana/",
    "k8s/platform/monitoring/generated/",
)
"""What `plumb contract docs` and `make generate` write from the files that were touched."""


class Copy:
    """The copied tree, with commands run in it; the files that a contributor would have touched so far."""

    def __init__(self, folder: Path, home: Path, spark: str) -> None:
        self.folder, self.home = trees.copy(folder), home
        self.environment = {**trees.environment(self.folder, home), "PLUMBLINE_NOW": NOW, "SPARK_REMOTE": spark}

    def apply(self, files: dict[str, str | tuple[str, str]]) -> None:
        """Writes new files, and replaces one text by another in those that are there."""
        for name, change in files.items():
            path = self.folder / name
            if isinstance(change, tuple):
                before = path.read_text()
                assert before.count(change[0]) == 1, name
                change = before.replace(*change)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(change)

    def run(self, *command: str) -> str:
        """Standard output of a command that must succeed."""
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False, timeout=600
        )
        assert done.returncode == 0, f"{command}: {done.stdout[-2000:]} {done.stderr[-3000:]}"
        return done.stdout

    def generated(self) -> None:
        """What CONTRIBUTING.md says to run at the end of each addition."""
        self.run("plumb", "contract", "docs")
        self.run(sys.executable, "-m", "observability.grafana")
        self.run(sys.executable, "-m", "observability")
        assert "contracts hold" in self.run("plumb", "contract", "check")

    @property
    def touched(self) -> set[str]:
        """The files that differ, but for generated ones."""
        return {name for name in trees.changed(self.folder) if not name.startswith(GENERATED)}


@pytest.fixture
def tree(tmp_path: Path, spark_address: str) -> Iterator[Copy]:
    made = Copy(tmp_path / "tree", tmp_path / "home", spark_address)
    yield made
    made.run("plumb", "down")


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_source_table_and_a_stage(tree: Copy) -> None:
    tree.apply(TABLE)
    tree.generated()
    assert tree.touched == set(TABLE)
    tree.run("git", "add", "-A")
    tree.run("git", "-c", "user.name=a", "-c", "user.email=a@localhost", "commit", "-q", "-m", "Visits")
    tree.apply(STAGE)
    tree.generated()
    assert tree.touched == set(STAGE)
    tree.run("plumb", "shop", "load")
    with sqlite3.connect(tree.home / "shop.sqlite") as shop:
        rows = [(number, 1, f"{DAY} 12:00:00.000000") for number in range(1, 41)]
        shop.executemany("INSERT INTO visits (visit_id, customer_id, recorded_at) VALUES (?, ?, ?)", rows)
    for stage in ("ingest", "dbt_run", "ge_check", "busy_day"):
        told = json.loads(tree.run("plumb", stage, "--as-of", DAY, "--json"))
        assert told["state"] == "done", told
        if stage == "dbt_run":
            assert told["rows"]["analytics.visits"] == 40
        if stage == "ge_check":
            assert "expectations of analytics.visits@v0 hold" in told["message"]
        if stage == "busy_day":
            assert told["message"].endswith(" orders")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_an_alert(tree: Copy) -> None:
    tree.apply(ALERT)
    tree.generated()
    assert tree.touched == set(ALERT)
    tree.run(sys.executable, "-m", "pytest", "-q", *_named("test_runbooks.py", tree))
    rules = "".join(path.read_text() for path in (tree.folder / "observability" / "prometheus").rglob("*.y*ml"))
    assert "ReplayInForce" in rules


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_feature(tree: Copy) -> None:
    """Up to the contract; docs/tutorials/add-a-feature.md goes on to the champion, and its own test with it."""
    tree.apply(FEATURE)
    tree.generated()
    assert tree.touched == set(FEATURE)


def _named(file: str, tree: Copy) -> list[str]:
    return [str(path) for path in (tree.folder / "tests").rglob(file)]
