"""The leakage gate's own label: it agrees with the definition for any customer id, by another way than training's."""

from __future__ import annotations

from datetime import timedelta

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


@pytest.mark.parametrize(("one", "other"), [(5, 5 + 2**44), ("DE-5", "FR-5")])
def test_another_customers_order_keeps_nobody(one: int | str, other: int | str) -> None:
    import numpy as np
    import pandas as pd

    orders = pd.DataFrame({"customer_id": [one, other], "order_day": [100, 150]})
    churned = knowable.churned(orders, np.array([one, other]), np.array([120, 120]), timedelta(days=90))
    assert churned.tolist() == [True, False]
