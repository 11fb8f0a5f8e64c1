"""What another tool's VACUUM does to a table of ours: versions that a release may name stay readable."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import write_deltalake
from deltalake.exceptions import DeltaError

from plumbline.lake import tables as lake

TABLE = "analytics.orders"


@pytest.fixture
def replaced(home: Path) -> None:
    """A table whose version 1 holds none of version 0's files."""
    for number in (0, 1):
        rows = pa.table({"order_id": [number]})
        write_deltalake(lake.uri(TABLE), rows, mode="overwrite", configuration=lake.KEEP_LOG)


@pytest.mark.usefixtures("replaced")
def test_delta_rs_takes_no_file_of_an_old_version() -> None:
    before = lake.opened(TABLE, 0).to_pyarrow_table()
    assert lake.opened(TABLE).vacuum(dry_run=False) == []
    with pytest.raises(DeltaError, match="retention"):
        lake.opened(TABLE).vacuum(retention_hours=168, dry_run=False)
    assert lake.opened(TABLE, 0).to_pyarrow_table() == before


@pytest.mark.usefixtures("with_spark")
def test_spark_takes_no_file_of_an_old_version_of_what_it_wrote() -> None:
    from plumbline.lake import spark

    session = spark.session()
    for number in (0, 1):
        frame = session.range(number, number + 1)
        frame.write.format("delta").mode("overwrite").save(lake.uri(TABLE))
    assert lake.opened(TABLE).metadata().configuration.items() >= lake.KEEP_LOG.items()
    session.sql(f"VACUUM delta.`{lake.uri(TABLE)}`").collect()
    assert [row.id for row in session.sql(f"SELECT * FROM {lake.at(TABLE, 0)}").collect()] == [0]
