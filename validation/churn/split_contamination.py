"""The gate `split_contamination`: what the model is tested on, it has not seen in training, nor its answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from validation.leakage_findings import Audited, Finding, counted

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

ABSENT = -1.0e300
"""Stands for a missing value where rows are compared: missing equals missing."""


def findings(audited: Audited, limits: dict[str, float]) -> list[Finding]:
    """Customer and period on both sides, label windows that reach into the test, and rows that are the same."""
    rows, features = audited.rows, audited.features
    train, test = rows[~rows["is_test"]], rows[rows["is_test"]]
    if not len(train) or not len(test):
        told = f"the split has {len(train):,} training and {len(test):,} test rows: there is nothing to test with"
        return [Finding("split", True, told, 0.0, 0.0)]
    return [
        counted("customer and period", _both_sides(train, test, ["customer_id", "day"]), limits["rows"],
                "train and test on one customer and day"),
        _label_windows(train, test, int(audited.about["horizon_days"]), limits),
        counted("copied rows", _copies(train, test, features), limits["rows"],
                "of the test have the same customer and features as a training row"),
        _identical(train, test, features, limits),
    ]  # fmt: skip


def _both_sides(train: pd.DataFrame, test: pd.DataFrame, key: list[str]) -> pd.DataFrame:
    import pandas as pd

    return test[pd.MultiIndex.from_frame(test[key]).isin(pd.MultiIndex.from_frame(train[key]))]


def _label_windows(train: pd.DataFrame, test: pd.DataFrame, horizon: int, limits: dict[str, float]) -> Finding:
    """Training rows whose label was not over when the same customer was first observed for the test."""
    first = train["customer_id"].map(test.groupby("customer_id")["day"].min())
    wrong = train[(train["day"] + horizon > first).to_numpy()]
    told = f"of the training have a label window of {horizon} days that ends behind the customer's test observation"
    return counted("label windows", wrong, limits["rows"], told)


def _copies(train: pd.DataFrame, test: pd.DataFrame, features: list[str]) -> pd.DataFrame:
    same = _numbers(test, ["customer_id", *features]), _numbers(train, ["customer_id", *features])
    return test[_among(*same)]


def _identical(train: pd.DataFrame, test: pd.DataFrame, features: list[str], limits: dict[str, float]) -> Finding:
    share = float(_among(_numbers(test, features), _numbers(train, features)).mean())
    limit = limits["identical_share"]
    told = f"{share:.1%} of the test rows have the same features as some training row, {limit:.0%} is believed"
    return Finding("identical rows", share > limit, told, round(share, 6), limit, round(share * len(test)))


def _among(asked: NDArray[Any], known: NDArray[Any]) -> NDArray[Any]:
    """Which rows of `asked` are among those of `known`."""
    import numpy as np

    seen = {row.tobytes() for row in known}
    return np.array([row.tobytes() in seen for row in asked], dtype=bool)


def _numbers(rows: pd.DataFrame, names: list[str]) -> NDArray[Any]:
    """The columns as float64, rounded to what a float32 can tell apart; text by the numbers of its values."""
    import pandas as pd

    columns = {
        name: rows[name] if pd.api.types.is_numeric_dtype(rows[name]) else rows[name].map(hash, na_action="ignore")
        for name in names
    }
    numbers: NDArray[Any] = pd.DataFrame(columns).astype("float64").fillna(ABSENT).to_numpy()
    return numbers + 0.0  # minus zero equals zero
