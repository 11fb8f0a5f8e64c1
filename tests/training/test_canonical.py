from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from training import canonical
from training.churn.dataset import schema
from training.churn.snapshots import KEY
from training.errors import TrainingError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


def frame() -> pd.DataFrame:
    import pandas as pd

    moments = pd.to_datetime(["1997-05-01", "1997-05-01", "1997-04-03"], utc=True)
    return pd.DataFrame(
        {
            "customer_id": [2, 1, 1],
            "event_timestamp": moments,
            "request_time": [862444800, 862444800, 860025600],
            "churned": [True, False, True],
            "is_test": [True, True, False],
            "orders_total": [1, 4, 2],
            "avg_ticket_30d": [None, 12.5, 0.0],
        }
    )


def wanted() -> pa.Schema:
    import pyarrow as pa

    return schema({"orders_total": pa.int32(), "avg_ticket_30d": pa.float32()})


def digest(rows: pd.DataFrame) -> str:
    return canonical.content_hash(canonical.table(rows, wanted(), KEY), KEY)


def test_rows_come_sorted_with_fixed_types() -> None:
    import pyarrow as pa

    table = canonical.table(frame(), wanted(), KEY)
    assert table.schema == wanted()
    assert table.column("customer_id").to_pylist() == [1, 1, 2]
    assert table.schema.field("event_timestamp").type == pa.timestamp("us", "UTC")
    assert table.column("avg_ticket_30d").to_pylist() == [0.0, 12.5, None]


def test_the_hash_is_the_same_for_any_row_order_file_and_kind_of_missing(tmp_path: Path) -> None:
    import numpy as np
    import pyarrow.parquet as pq

    first = digest(frame())
    assert digest(frame().iloc[::-1]) == first
    assert digest(frame().fillna(np.nan)) == first
    table = canonical.table(frame(), wanted(), KEY)
    assert canonical.content_hash(table.take([2, 0, 1]), KEY) == first
    one = canonical.to_parquet(table)
    pq.write_table(table, tmp_path / "two.parquet", compression="none", row_group_size=1)
    two = (tmp_path / "two.parquet").read_bytes()
    assert one != two
    assert {canonical.content_hash(canonical.from_parquet(content), KEY) for content in (one, two)} == {first}


@pytest.mark.parametrize(
    ("column", "value"),
    [("churned", True), ("avg_ticket_30d", 12.6), ("avg_ticket_30d", None), ("orders_total", 5), ("customer_id", 9)],
)
def test_one_other_value_is_another_hash(column: str, value: object) -> None:
    changed = frame()
    changed.loc[1, column] = value
    assert digest(changed) != digest(frame())


def test_null_and_zero_differ() -> None:
    changed = frame()
    changed.loc[0, "avg_ticket_30d"] = 0.0
    assert digest(changed) != digest(frame())


def test_bad_rows_are_refused_by_name() -> None:
    import pandas as pd

    with pytest.raises(TrainingError, match="1 rows repeat the key"):
        canonical.table(pd.concat([frame(), frame().head(1)]), wanted(), KEY)
    with pytest.raises(TrainingError, match="lacks orders_total"):
        canonical.table(frame().drop(columns="orders_total"), wanted(), KEY)
    with pytest.raises(TrainingError, match="request_time: 1 values are missing"):
        canonical.table(frame().assign(request_time=[None, 1, 2]), wanted(), KEY)
    with pytest.raises(TrainingError, match="orders_total does not fit int32"):
        canonical.table(frame().assign(orders_total=[0.5, 1, 2]), wanted(), KEY)


def test_the_hash_of_these_rows_never_changes() -> None:
    """Runs of old name their dataset by it."""
    assert digest(frame()) == "sha256:a563c84498e3431a0b94e5319252a07ff67df4ae3179aa18d14270a5116c768d"


def test_lists_of_numbers_are_hashed_by_value_length_and_place() -> None:
    import numpy as np
    import pyarrow as pa

    def hashed(*embeddings: list[float] | None) -> str:
        rows = frame().assign(embedding=list(embeddings))
        kinds = pa.schema([*wanted(), pa.field("embedding", pa.list_(pa.float32()))])
        table = canonical.table(rows, kinds, KEY)
        read = canonical.from_parquet(canonical.to_parquet(table))
        first = canonical.content_hash(table, KEY)
        assert canonical.content_hash(read, KEY) == first, "however Parquet names a list's elements"
        assert canonical.content_hash(table.take([2, 0, 1]), KEY) == first
        return first

    plain = hashed([1.0, 2.0], [3.0, 4.0], [5.0, 6.0])
    assert plain == hashed([1.0, 2.0], [3.0, 4.0], [5.0, 6.0])
    others = {
        hashed([1.0, 2.0], [3.0, 4.0], [5.0, float(np.nextafter(np.float32(6), np.float32(7)))]),
        hashed([1.0, 2.0], [3.0, 4.0, 5.0], [6.0]),
        hashed([2.0, 1.0], [3.0, 4.0], [5.0, 6.0]),
        hashed([1.0, 2.0], [3.0, 4.0], None),
        hashed([1.0, 2.0], [3.0, 4.0], []),
        hashed([1.0, 2.0], [3.0, 4.0], [5.0, float("nan")]),
    }
    assert plain not in others and len(others) == 6
