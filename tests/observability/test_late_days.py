"""One late day in 200: counted from the releases, against a loop that asks each day by itself."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from observability import promises
from observability.late_days import late_days
from plumbline import clock
from plumbline.contracts import contract as contracts
from plumbline.contracts.contract import ContractError

FIRST = date(1998, 1, 1)
DEADLINE = timedelta(minutes=5)


def naive(published: list[tuple[datetime, date]], now: datetime) -> tuple[int, list[date]]:
    due, late = 0, []
    day = published[0][1] if published else FIRST
    while published and clock.end_of(day) + DEADLINE <= now:
        if clock.end_of(day) + DEADLINE > now - timedelta(days=promises.DAYS):
            due += 1
            there = [as_of for when, as_of in published if when <= clock.end_of(day) + DEADLINE]
            if not there or there[-1] < day:
                late.append(day)
        day += timedelta(days=1)
    return due, late


@given(
    delays=st.lists(st.integers(0, 3 * 24 * 60), min_size=0, max_size=300),
    undone=st.sets(st.integers(0, 299), max_size=3),
    minutes=st.integers(0, 500 * 24 * 60),
)
def test_it_counts_what_a_loop_over_days_counts(delays: list[int], undone: set[int], minutes: int) -> None:
    published: list[tuple[datetime, date]] = []
    for n, delay in enumerate(delays):
        day = FIRST + timedelta(days=n)
        when = max(clock.end_of(day) + timedelta(minutes=delay), published[-1][0] if published else clock.end_of(day))
        published.append((when, day))
        if n in undone:
            published.append((when + timedelta(minutes=1), day - timedelta(days=1)))
    now = datetime(1998, 1, 1, tzinfo=UTC) + timedelta(minutes=minutes)
    assert late_days(published, now, DEADLINE) == naive(published, now)


def test_one_late_day_in_200_is_what_the_contract_allows_and_two_are_not() -> None:
    contract = contracts.load("features.customers")
    assert promises.deadline(contract) == DEADLINE
    assert promises.late_days_allowed(contract) == 1
    published = [(clock.end_of(FIRST + timedelta(days=n)), FIRST + timedelta(days=n)) for n in range(300)]
    published[150] = (published[150][0] + timedelta(minutes=6), published[150][1])
    now = published[-1][0] + timedelta(minutes=6)
    assert late_days(published, now, DEADLINE) == (200, [FIRST + timedelta(days=150)])
    in_time = [*published]
    in_time[150] = (published[150][0] - timedelta(minutes=1), published[150][1])
    assert late_days(in_time, now, DEADLINE) == (200, [])


def test_a_promise_that_no_rule_could_keep_is_refused() -> None:
    from dataclasses import replace

    contract = contracts.load("features.customers")
    level = promises.level(contract, "timeOfAvailability")
    assert level is not None

    def changed(**given: object) -> contracts.Contract:
        others = [x for x in contract.levels if x.property != "timeOfAvailability"]
        return replace(contract, levels=(*others, replace(level, **given)))  # type: ignore[arg-type]

    with pytest.raises(ContractError, match="expected HH:MM with unit UTC, found 00:05 CET"):
        promises.deadline(changed(unit="CET"))
    with pytest.raises(ContractError, match="needs a percentage in customProperties, objectives"):
        promises.late_days_allowed(changed(objective=None))
    complete = promises.level(contract, "completeness")
    assert complete is not None
    with pytest.raises(ContractError, match="shoe_size: no column of that name"):
        promises.complete(replace(contract, levels=(replace(complete, element="customer_id, shoe_size"),)))
