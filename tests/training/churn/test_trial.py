"""The metric difference of a preview: a column that knows the outcome must show, one of noise must not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from plumbline.state import releases
from tests.training.churn import made_up_shop
from training.churn import labels
from training.churn import preview_model as trial
from training.errors import TrainingError


@pytest.fixture
def rows(shop: Callable[[int], dict[str, Any]]) -> pd.DataFrame:
    """Weekly snapshots of the made-up shop as a preview gets them from Spark."""
    if not releases.numbers("churn"):
        shop(1)
    orders = made_up_shop.simulate_orders(700)
    frame = made_up_shop.snapshot_table(orders, made_up_shop.WEEKLY).to_pandas()
    frame["snapshot_date"] = pd.to_datetime(frame["snapshot_date"])
    day = ((frame["snapshot_date"] - pd.Timestamp("1970-01-01")).dt.days).to_numpy()
    frame["outcome"] = labels.churned(
        orders["customer_id"].to_numpy(), orders["order_day"].to_numpy(), frame["customer_id"].to_numpy(), day
    ).astype(float)
    return frame


def difference(before: pd.DataFrame, after: pd.DataFrame) -> dict[str, Any]:
    return trial.difference(releases.required("churn"), before, after)


def test_the_same_columns_make_no_difference(rows: pd.DataFrame) -> None:
    plain = rows.drop(columns="outcome")
    found = difference(plain, plain.sample(frac=1, random_state=1))  # in whatever order the rows come
    assert found["inputs"]["before"] == found["inputs"]["after"]
    assert found["inputs"]["before"][-1] == "days_since_last_order", "computed on demand, as if asked at event_time"
    assert {(m["difference"], m["low"], m["high"]) for m in found["metrics"].values()} == {(0, 0, 0)}
    assert found["customers"] <= 700 and found["rows"]["test"] > 500


def test_a_column_that_knows_the_outcome_shows_and_noise_does_not(rows: pd.DataFrame) -> None:
    plain = rows.drop(columns="outcome")
    told = difference(plain, rows)
    assert told["inputs"]["after"] == [*told["inputs"]["before"], "outcome"]
    assert told["metrics"]["log_loss"]["high"] < -0.05 and told["metrics"]["roc_auc"]["low"] > 0.05
    assert difference(rows, plain)["metrics"]["log_loss"]["low"] > 0.05, "and taking it away shows too"
    noise = plain.assign(noise=np.random.default_rng(3).normal(size=len(plain)))
    metrics = difference(plain, noise)["metrics"]
    assert all(abs(metrics[name]["difference"]) < 0.05 for name in metrics)


def test_one_kind_of_customers_cannot_be_judged(rows: pd.DataFrame) -> None:
    one_kind = rows[rows["outcome"] == 1].drop(columns="outcome")
    with pytest.raises(TrainingError, match="same label: sample more"):
        difference(one_kind, one_kind)
