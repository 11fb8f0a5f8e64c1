"""Rows in a real Redis, without Spark: whose they are, what they hold, and which of them a release leaves there."""

from __future__ import annotations

from pathlib import Path

import pytest

from feature_repo import online_rows
from plumbline import clock
from plumbline.servers import online_store
from products.churn import CHURN
from tests.validation import parity_world as world
from tests.validation.parity_world import DAYS, NULLS, N


@pytest.fixture
def rows(home: Path) -> online_rows.OnlineRows:
    """Release 2 of the made-up world, online, and a newcomer whom release 1 does not know."""
    tables = world.build()
    world.write(world.changed(tables[2], 1, customer_id=5_000))
    return online_rows.OnlineRows(CHURN)


def test_a_row_is_read_as_it_was_written(rows: online_rows.OnlineRows) -> None:
    assert len(rows.customers()) == N
    nobody, found = rows.read([77_777, NULLS])
    assert nobody == (77_777, None, {})
    customer, stamp, values = found
    assert (customer, stamp, values["release_id"]) == (NULLS, clock.end_of(DAYS[2]), 2)
    assert values["avg_ticket"] is None
    assert set(values) == set(rows.names)


def test_who_is_removed_is_gone_and_the_mark_stays(rows: online_rows.OnlineRows) -> None:
    assert rows.remove({1, 2, 77_777}) == 2
    assert len(rows.customers()) == N - 2
    assert online_store.online(online_store.client(), CHURN) == (2, clock.end_of(DAYS[2]))
