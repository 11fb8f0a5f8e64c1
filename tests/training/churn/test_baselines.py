from __future__ import annotations

from datetime import date

import pytest

from tests.training.churn.made_up_shop import simulate_orders
from training.churn import baselines
from training.churn.baselines import BgNbd
from training.errors import TrainingError

CDNOW = BgNbd(r=0.27, alpha=41.6, a=0.46, b=1.92)
"""About what CDNOW gives, in days."""


def test_recency_ranks_by_days_and_finds_the_base_rate() -> None:
    import numpy as np

    random = np.random.default_rng(1)
    days = random.integers(0, 400, 5_000)
    churned = random.random(5_000) < 0.3 + days / 800
    probability = baselines.recency(days, churned, np.arange(400))
    assert (np.diff(probability) > 0).all()
    assert baselines.recency(days, churned, days).mean() == pytest.approx(churned.mean(), abs=1e-3)


def test_p_active_is_that_of_lifetimes() -> None:
    import numpy as np
    from lifetimes import BetaGeoFitter

    fitter = BetaGeoFitter()
    fitter.params_ = {"r": CDNOW.r, "alpha": CDNOW.alpha, "a": CDNOW.a, "b": CDNOW.b}
    frequency, recency, age = np.array([0.0, 1, 5, 40]), np.array([0.0, 30, 300, 395]), np.full(4, 400.0)
    # Whoever would never buy again if active: over an endless time only those who left stay silent.
    silent_for_ever = CDNOW.no_purchase(frequency, recency, age, 1e30)
    expected = 1 - fitter.conditional_probability_alive(frequency, recency, age)
    assert silent_for_ever == pytest.approx(expected, abs=1e-6)


def test_nobody_buys_in_no_time() -> None:
    import numpy as np

    assert CDNOW.no_purchase(np.array([3.0]), np.array([50.0]), np.array([60.0]), 0) == pytest.approx([1.0])


def test_no_purchase_is_calibrated_on_customers_simulated_from_the_model() -> None:
    import numpy as np

    random, age, horizon, n = np.random.default_rng(3), 300.0, 90, 40_000
    rate, leaves = random.gamma(CDNOW.r, 1 / CDNOW.alpha, n), random.beta(CDNOW.a, CDNOW.b, n)
    clock, active = np.zeros(n), np.ones(n, dtype=bool)
    frequency, recency, bought_again = np.zeros(n), np.zeros(n), np.zeros(n, dtype=bool)
    while active.any():
        clock = np.where(active, clock + random.exponential(1 / np.maximum(rate, 1e-300)), np.inf)
        before = clock <= age
        frequency, recency = frequency + before, np.where(before, clock, recency)
        bought_again |= (clock > age) & (clock <= age + horizon)
        active &= (clock <= age + horizon) & (random.random(n) >= leaves)
    probability = CDNOW.no_purchase(frequency, recency, np.full(n, age), horizon)
    order = np.argsort(probability)
    for group in np.array_split(order, 8):
        share = 1 - bought_again[group].mean()
        assert share == pytest.approx(probability[group].mean(), abs=0.025)


def test_bgnbd_is_fitted_on_the_purchases_that_are_given() -> None:
    import numpy as np

    orders = simulate_orders(400)
    orders["order_date"] = orders["order_day"].to_numpy().astype("datetime64[D]").astype("datetime64[us]")
    observed = date(1997, 12, 31)
    known = orders[orders["order_date"] <= "1997-12-31"]
    customers = np.array([5, 3, 1])
    answer = baselines.bgnbd(known, observed, customers, 90)
    assert answer is not None
    probability, fitted = answer
    assert probability.shape == (3,)
    assert ((probability > 0) & (probability < 1)).all()
    assert min(fitted.r, fitted.alpha, fitted.a, fitted.b) > 0
    with pytest.raises(TrainingError, match=r"1 test customers have no order .* the first is 9999"):
        baselines.bgnbd(known, observed, np.array([1, 9999]), 90)


def test_bgnbd_without_a_best_fit_is_no_baseline() -> None:
    import numpy as np
    import pandas as pd

    weekly = pd.date_range("1997-01-01", "1997-12-31", freq="7D")
    nobody_leaves = pd.DataFrame({"customer_id": np.repeat(range(8), len(weekly)), "order_date": np.tile(weekly, 8)})
    assert baselines.bgnbd(nobody_leaves, date(1997, 12, 31), np.array([1, 2]), 30) is None
