from __future__ import annotations

from datetime import date, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.churn import split
from training.errors import TrainingError

FIRST = date(1997, 1, 1)
WEEKLY = [FIRST + timedelta(weeks=week) for week in range(78)]


def test_cdnow_is_tested_on_the_first_of_april_and_trained_up_to_new_years_eve() -> None:
    observed = split.choose(WEEKLY, date(1998, 6, 30))
    assert observed.test == date(1998, 4, 1)
    assert observed.train[0] == date(1997, 4, 23)
    assert observed.train[-1] == date(1997, 12, 31)
    assert len(observed.train) == 10
    assert observed.days == (*observed.train, observed.test)


@given(weeks=st.integers(0, 200), extra=st.integers(0, 200))
def test_no_training_label_reaches_past_the_test_observation(weeks: int, extra: int) -> None:
    as_of = FIRST + timedelta(days=7 * weeks + extra)
    days = [FIRST + timedelta(days=day) for day in range((as_of - FIRST).days + 1)]
    try:
        observed = split.choose(days, as_of)
    except TrainingError:
        assert (as_of - FIRST).days < 90 + 90 + 90 + 14
        return
    assert observed.test + timedelta(days=90) <= as_of
    assert all(day + timedelta(days=90) <= observed.test for day in observed.train)
    assert all(later - earlier == timedelta(weeks=4) for earlier, later in pairwise(observed.train))
    assert all((day - FIRST).days % 7 == 0 for day in observed.days)


@pytest.mark.parametrize("later", range(7))
def test_a_shop_may_open_on_any_day_of_the_week(later: int) -> None:
    """The same days, all of them later: weeks go by the first snapshot. Daily ones at the end change nothing."""
    move = timedelta(days=later)
    cdnow = split.choose(WEEKLY, date(1998, 6, 30))
    daily = [date(1998, 6, 24) + timedelta(days=day) for day in range(7)]
    moved = split.choose([day + move for day in (*daily, *WEEKLY)], date(1998, 6, 30) + move)
    assert moved.days == tuple(day + move for day in cdnow.days)


def test_daily_snapshots_at_the_end_change_nothing() -> None:
    daily = [date(1998, 6, 24) + timedelta(days=day) for day in range(7)]
    assert split.choose([*WEEKLY, *daily, *WEEKLY], date(1998, 6, 30)) == split.choose(WEEKLY, date(1998, 6, 30))


def test_too_short_a_history_says_what_is_missing() -> None:
    with pytest.raises(TrainingError, match="a label needs 90 days of orders after its observation"):
        split.choose(WEEKLY[:4], date(1997, 1, 31))
    with pytest.raises(TrainingError, match=r"no training observation: .* about 270 days of history"):
        split.choose(WEEKLY[:35], date(1997, 8, 31))
