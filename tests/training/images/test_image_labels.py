"""The label that was known at a moment, against every order of statements."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.errors import TrainingError
from training.images import labels

CUTOFF = datetime(2026, 6, 3, tzinfo=UTC)
STAMP = pa.timestamp("us", "UTC")
KINDS = pa.schema(
    {"image_id": pa.string(), "label": pa.string(), "event_time": STAMP, "labelled_at": STAMP, "batch_id": pa.string()}
)


def statement(image: str, label: str | None, day: int, minute: int = 0) -> dict[str, Any]:
    known = CUTOFF + timedelta(days=day)
    return {"image_id": image, "label": label, "event_time": known, "labelled_at": known + timedelta(minutes=minute),
            "batch_id": "b"}  # fmt: skip


def known(*rows: dict[str, Any]) -> dict[str, str]:
    found: dict[str, str] = labels.known(pa.Table.from_pylist(list(rows), schema=KINDS), CUTOFF).to_dict()
    return found


def test_a_review_counts_from_its_time_on_and_not_before() -> None:
    first, review = statement("a", "cat", -1), statement("a", "dog", 1)
    assert known(first, review) == {"a": "cat"}
    assert known(first, statement("a", "dog", 0)) == {"a": "dog"}, "known at the very moment"


def test_of_two_reviews_of_a_day_the_one_labelled_last_counts() -> None:
    assert known(statement("a", "dog", 0, 5), statement("a", "cat", 0, 1)) == {"a": "dog"}


def test_what_nobody_labelled_yet_is_not_there() -> None:
    assert known(statement("a", None, -1), statement("b", "cat", 1)) == {}
    assert known(statement("a", None, -1), statement("a", "cat", 0)) == {"a": "cat"}
    assert known(statement("a", "cat", -1), statement("a", None, 0)) == {}, "a label that was taken away"


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from(["cat", "dog", None]), st.integers(-3, 3), st.integers(0, 2)),
        max_size=12,
    )
)
def test_both_ways_agree_on_any_statements(told: list[tuple[str, str | None, int, int]]) -> None:
    assert set(known(*(statement(*one) for one in told))) <= set("abc")


def test_two_ways_that_differ_make_no_dataset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labels, "_plainly", lambda *_: {"a": "dog"})
    with pytest.raises(TrainingError, match="differ for 2 images, the first a"):
        known(statement("a", "cat", -1))
