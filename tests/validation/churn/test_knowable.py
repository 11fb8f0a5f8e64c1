"""The leakage gate's own label: it agrees with the definition for any customer id, by another way than training's."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from validation.churn import knowable

IDS = st.one_of(st.integers(0, 3), st.sampled_from([3 + 2**44, -1, -(2**63), 2**63 - 1]))
PAIRS = st.lists(st.tuples(IDS, st.integers(9_000, 9_120)), min_size=1, max_size=20)


@settings(deadline=None)  # the first example imports pandas
@given(orders=PAIRS, observed=PAIRS, horizon=st.integers(1, 100))
def test_the_label_agrees_with_a_naive_loop(
    orders: list[tuple[int, int]], observed: list[tuple[int, int]], horizon: int
) -> None:
    import numpy as np
    import pandas as pd

    dated = pd.DataFrame(orders, columns=["customer_id", "order_day"]).astype("int64")
    customers, days = (np.array(values, dtype=np.int64) for values in zip(*observed, strict=True))
    naive = [not any(c == customer and t < day <= t + horizon for c, day in orders) for customer, t in observed]
    assert knowable.churned(dated, customers, days, timedelta(days=horizon)).tolist() == naive


def test_a_return_counts_from_when_it_was_known_and_for_90_days() -> None:
    import pandas as pd

    def at(*days: str | None) -> pd.Series:
        return pd.to_datetime(pd.Series(days), utc=True)

    orders = pd.DataFrame(
        {"customer_id": [1, 2], "order_day": [10_000, 10_000], "total_cents": [900, 900], "units": [1, 1]}
    ).assign(known_at=at("1997-05-19", "1997-05-19"), known_until=at(None, None))
    returns = pd.DataFrame({"customer_id": [1, 1, 2], "returned_day": [10_005, 10_010, 10_005], "cents": [5, 70, 300]})
    returns = returns.assign(
        known_at=at("1997-05-24", "1997-06-20", "1997-05-24"), known_until=at(None, None, "1997-06-01")
    )

    def of(day: str) -> list[int]:
        return knowable.features(orders, date.fromisoformat(day), returns)["returned_cents_90d"].tolist()

    assert of("1997-05-23") == [0, 0]
    assert of("1997-05-24") == [5, 300]
    assert of("1997-06-01") == [5, 0], "the second was deleted that day"
    assert of("1997-06-20") == [75, 0], "known late: it counts from then on"
    assert of("1997-08-22") == [70, 0], "dated 90 days before: out of the window"


@pytest.mark.parametrize(("one", "other"), [(5, 5 + 2**44), ("DE-5", "FR-5")])
def test_another_customers_order_keeps_nobody(one: int | str, other: int | str) -> None:
    import numpy as np
    import pandas as pd

    orders = pd.DataFrame({"customer_id": [one, other], "order_day": [100, 150]})
    churned = knowable.churned(orders, np.array([one, other]), np.array([120, 120]), timedelta(days=90))
    assert churned.tolist() == [True, False]
