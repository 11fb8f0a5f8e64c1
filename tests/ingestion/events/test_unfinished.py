"""Batches that landed and were cut off there, whose query nobody goes on with: by made-up tables."""

from __future__ import annotations

import pytest

from ingestion.events import stream_tables
from tests import made_up_stream
from tests.made_up_stream import QUERY, Stream

pytestmark = pytest.mark.usefixtures("home")


def test_a_batch_in_raw_that_the_books_lack_is_unfinished_unless_its_own_query_goes_on() -> None:
    stream = made_up_stream.days()
    last = stream.books[-1]["batch"]
    stream.books = [row for row in stream.books if row["batch"] != last]
    stream.write()
    assert stream_tables.unfinished("another") == [(QUERY, int(last.rpartition("/")[2]))]
    assert stream_tables.unfinished(QUERY) == []


def test_without_books_all_is_unfinished_in_its_order() -> None:
    stream = made_up_stream.days()
    Stream(events=stream.events, dead_letters=stream.dead_letters).write()
    numbers = [number for _, number in stream_tables.unfinished("another")]
    assert numbers == sorted({int(row["batch"].rpartition("/")[2]) for row in stream.books})


def test_a_home_in_which_nothing_landed_has_none() -> None:
    assert stream_tables.unfinished("another") == []
