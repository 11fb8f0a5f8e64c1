from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.churn import labels
from training.errors import TrainingError

T = 10_000


def label(*order_days: int, observed: int = T) -> bool:
    import numpy as np

    days = np.array(order_days, dtype=np.int64)
    return bool(labels.churned(np.ones_like(days), days, np.array([1]), np.array([observed]))[0])


@pytest.mark.parametrize(
    ("order_day", "churned"),
    [(T - 1, True), (T, True), (T + 1, False), (T + 89, False), (T + 90, False), (T + 91, True)],
)
def test_the_window_is_open_at_t_and_closed_at_t_plus_90(order_day: int, churned: bool) -> None:
    assert label(order_day) is churned


def test_any_order_in_the_window_keeps_a_customer() -> None:
    assert label(T - 400, T, T + 90, T + 300) is False


def test_no_orders_at_all_is_churn() -> None:
    assert label() is True


def test_another_customers_order_does_not_count() -> None:
    import numpy as np

    churned = labels.churned(np.array([1, 3]), np.array([T + 1, T + 1]), np.array([1, 2, 3]), np.array([T, T, T]))
    assert churned.tolist() == [False, True, False]


def test_the_last_usable_observation_of_cdnow_is_the_first_of_april() -> None:
    assert labels.last_observable(date(1998, 6, 30)) == date(1998, 4, 1)


@pytest.mark.parametrize(
    ("one", "other"),
    [(5, 5 + 2**44), (-5, 5), (2**63 - 1, -(2**63)), (2**62, 2**62 + 1), ("DE-5", "FR-5"), ("5", "05")],
)
def test_orders_of_a_customer_whose_id_looks_alike_keep_nobody(one: int | str, other: int | str) -> None:
    """Ids that agree in their low 44 bits, ids below 0, both ends of int64, and text."""
    import numpy as np

    orders = np.array([one, other]), np.array([100, 150])
    assert labels.churned(*orders, np.array([one, other]), np.array([120, 120])).tolist() == [True, False]


def test_orders_before_1970_count_by_their_day() -> None:
    assert label(-400, -30, observed=-50) is False
    assert label(-400, -30, observed=-400) is True


ids = st.one_of(st.integers(0, 5), st.sampled_from([5 + 2**44, -1, -(2**63), 2**63 - 1]))
pairs = st.lists(st.tuples(ids, st.integers(9_000, 9_200)), max_size=30)


@given(orders=pairs, observed=pairs, horizon=st.integers(0, 120))
def test_it_agrees_with_a_naive_loop(
    orders: list[tuple[int, int]], observed: list[tuple[int, int]], horizon: int
) -> None:
    import numpy as np

    def columns(rows: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
        table = np.array(rows, dtype=np.int64).reshape(-1, 2)
        return table[:, 0], table[:, 1]

    naive = [not any(c == customer and t < day <= t + horizon for c, day in orders) for customer, t in observed]
    assert labels.churned(*columns(orders), *columns(observed), horizon).tolist() == naive


@pytest.mark.parametrize(
    ("churned", "is_test", "told"),
    [
        ([True, False, True, True], [False, False, True, True], "2 of 2 customers observed on 1998-04-01 did churn"),
        ([False, False, True, False], [False, False, True, True], "2 of 2 training rows did not churn"),
        ([True, False], [True, True], "0 of 0 training rows are there"),
    ],
)
def test_rows_of_one_outcome_train_and_judge_nothing(churned: list[bool], is_test: list[bool], told: str) -> None:
    import numpy as np

    with pytest.raises(TrainingError, match=rf"^{told} \(no order in the 90 days after\).* horizon_days"):
        labels.refuse_one_outcome(np.array(churned), np.array(is_test), date(1998, 4, 1))


def test_both_outcomes_on_both_sides_are_enough() -> None:
    import numpy as np

    labels.refuse_one_outcome(np.array([True, False] * 2), np.array([True, True, False, False]), date(1998, 4, 1))
