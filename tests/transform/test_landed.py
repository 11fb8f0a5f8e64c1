"""What dbt reads of raw while a column is being renamed, asked of a real Spark over real Delta tables."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
import yaml
from deltalake import write_deltalake

from plumbline.lake import spark
from plumbline.lake import tables as lake
from plumbline.settings import ROOT, settings
from transform import landed

BATCHES = pa.array(["good", "good", "bad"])
RAW: dict[str, dict[str, Any]] = {
    "before": {"total_cents": [1, 2, 3]},
    "in the notice": {"total_cents": [1, 2, 3], "amount_cents": [None, 2, 3]},
    "after": {"amount_cents": [1, 2, 3]},
}


@pytest.fixture
def _announced(spark_lake: None, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = {"from": "total_cents", "to": "amount_cents", "announced": "1998-06-20", "effective": "1998-07-05"}
    for path in (ROOT / "contracts").glob("*.yaml"):
        document = yaml.safe_load(path.read_text())
        if path.name == "shop.orders.odcs.yaml":
            document["customProperties"] = [{"property": "announcedRenames", "value": [rename]}]
        (tmp_path / path.name).write_text(yaml.safe_dump(document))
    monkeypatch.setenv("PLUMBLINE_CONTRACTS", str(tmp_path))
    settings.cache_clear()


@pytest.mark.usefixtures("_announced")
def test_a_model_finds_either_name_filled_whenever_it_moves() -> None:
    for version, (when, columns) in enumerate(RAW.items()):
        table = pa.table({"order_id": pa.array([1, 2, 3]), **{n: pa.array(v) for n, v in columns.items()}})
        table = table.append_column("batch_id", BATCHES)
        write_deltalake(lake.uri("raw.orders"), table, mode="overwrite", schema_mode="overwrite")
        relation = landed.at("raw.orders", version, ["bad"])
        rows = spark.session().sql(f"SELECT * FROM {relation} ORDER BY order_id").collect()
        assert [(r.order_id, r.total_cents, r.amount_cents) for r in rows] == [(1, 1, 1), (2, 2, 2)], when


def test_without_a_rename_it_is_the_table_at_its_version(home: Any) -> None:
    assert landed.at("raw.customers", 3, ["bad"]) == lake.at("raw.customers", 3, ["bad"])
