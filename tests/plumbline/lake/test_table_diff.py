from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from plumbline.lake.table_diff import compare

TYPES = {"id": "bigint", "a": "int", "b": "string", "day": "date"}


def frame(n: int = 100) -> pd.DataFrame:
    days = pd.to_datetime("1998-01-01") + pd.to_timedelta(np.arange(n) % 7, "D")
    return pd.DataFrame({"id": np.arange(n), "a": np.arange(n) % 10, "b": ["x", None] * (n // 2), "day": days})


def test_rows_are_matched_by_key_and_missing_equals_missing() -> None:
    before, after = frame(), frame().sample(frac=1, random_state=1)
    after = after[after["id"] >= 10]
    after = pd.concat([after, frame(120).iloc[100:]])
    after.loc[after["id"] == 50, "a"] += 1
    after.loc[after["id"] == 51, "b"] = "y"
    found = compare(before, after, ["id"], (TYPES, TYPES))
    assert found["rows"] == {"before": 100, "after": 110, "added": 20, "removed": 10, "changed": 2}
    assert found["each"]["a"]["changed"] == found["each"]["b"]["changed"] == 1 / 90
    assert found["each"]["day"]["changed"] == 0
    assert found["each"]["b"]["before"]["missing"] == 0.5


def test_columns_added_removed_and_retyped_are_named_with_their_types() -> None:
    before, after = frame(), frame().drop(columns="b").assign(c=np.where(np.arange(100) < 25, np.nan, 2.0))
    found = compare(before, after, ["id"], (TYPES, {**TYPES, "a": "float", "c": "double"}))
    assert found["columns"] == {
        "added": {"c": "double"},
        "removed": {"b": "string"},
        "retyped": {"a": ["int", "float"]},
    }
    new = found["each"]["c"]
    assert (new["changed"], new["psi"], new["before"], new["after"]["missing"]) == (None, None, None, 0.25)
    assert sum(found["each"]["a"]["histogram"]["after"]) == pytest.approx(1)


def test_what_says_who_wrote_a_row_is_no_change_of_it() -> None:
    found = compare(frame(), frame().assign(a=0), ["id"], (TYPES, TYPES), ignored=("a",))
    assert found["rows"]["changed"] == 0 and "a" not in found["each"]


def test_a_key_that_comes_twice_cannot_be_matched() -> None:
    with pytest.raises(ValueError, match=r"1 rows after repeat a key \(id\)"):
        compare(frame(), pd.concat([frame(), frame().iloc[:1]]), ["id"], (TYPES, TYPES))
