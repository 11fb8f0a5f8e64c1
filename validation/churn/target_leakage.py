"""The gate `target_leakage`: no feature alone may know the answer."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from validation.leakage_findings import Audited, Finding, keys_of

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

BINS = 64
"""Groups that a feature's values are cut into: fine enough for any shape, coarse enough to hold many customers."""

FEW = 50
"""Up to so many distinct values each is a group of its own."""


def findings(audited: Audited, limits: dict[str, float]) -> list[Finding]:
    """Two for each feature: how well it ranks by itself, the best first, and the purest group of its values."""
    rows = audited.rows
    groups = {name: _groups(rows[name], ~rows["is_test"].to_numpy()) for name in audited.features}
    alone = [_alone(name, group, rows, limits) for name, group in groups.items()]
    purest = [_purest(name, group, rows, limits) for name, group in groups.items()]
    return sorted(alone, key=lambda finding: -finding.value) + purest


def but_for(found: list[Finding], proven: set[str]) -> list[Finding]:
    """The same, but a feature that is proven to be what was known by then cannot know the answer: it fails nothing.

    Where customers buy often, the days since the last order rank them better than any limit that fits other shops.
    """
    honest = ": each row is what the orders and returns known by then give, so it stands"
    return [
        replace(finding, failed=False, told=finding.told + honest)
        if finding.failed and finding.what.rpartition(":")[0] in proven
        else finding
        for finding in found
    ]


def _groups(values: pd.Series, train: NDArray[Any]) -> NDArray[Any]:
    """A group's number for each row: missing is 0, a value or a range of values from 1 on. Text is values.

    Ranges hold about as many training rows each; what lies beyond them belongs to the outermost.
    """
    import numpy as np
    import pandas as pd

    if not pd.api.types.is_numeric_dtype(values) or values.nunique() <= FEW:
        return np.asarray(pd.factorize(values)[0]) + 1
    numbers = values.to_numpy(dtype="float64", na_value=np.nan)
    given = numbers[train & ~np.isnan(numbers)]
    edges = np.unique(np.quantile(given, np.linspace(0, 1, BINS + 1)))[1:-1] if len(given) else np.array([])
    return np.where(np.isnan(numbers), 0, 1 + np.searchsorted(edges, numbers, side="right"))


def _alone(name: str, group: NDArray[Any], rows: pd.DataFrame, limits: dict[str, float]) -> Finding:
    """ROC-AUC of the feature alone: each group scores its churn rate in the training rows; the worse side counts.

    Whatever shape the relation has, rising, falling or neither, it ranks as well as its groups can.
    """
    from sklearn.metrics import roc_auc_score

    test, churned = rows["is_test"].to_numpy(), rows["churned"].to_numpy()
    overall = float(churned[~test].mean())
    rate, size = _rates(group, churned, ~test)
    score = ((rate * size + overall) / (size + 1))[group]  # a group that training never saw scores the average
    ranked = [float(roc_auc_score(churned[p], score[p])) for p in (test, ~test) if len(set(churned[p])) == 2]
    value = max(ranked, default=0.5)
    limit = limits["single_feature_auc"]
    told = f"{name} alone ranks churn with ROC-AUC {value:.3f}, at most {limit} is believed of one feature"
    return Finding(f"{name}: alone", value > limit, told, round(value, 6), limit, len(rows))


def _purest(name: str, group: NDArray[Any], rows: pd.DataFrame, limits: dict[str, float]) -> Finding:
    """The group whose churn rate is closest to 0 or 1; all values that are not missing are a group together too."""
    train = ~rows["is_test"].to_numpy()
    low, high = _believed(float(rows["churned"][train].mean()), limits)
    parts = [train & (group == number) for number in range(int(group.max()) + 1)]
    if parts[0].any():
        parts.append(train & (group > 0))
    least = max(1, limits["group_share"] * train.sum())
    looked = [rows[part] for part in parts if part.sum() >= least]
    looked = [part for part in looked if part["customer_id"].nunique() >= limits["group_customers"]]
    if not looked:
        return Finding(f"{name}: purest group", False, f"{name}: no group of its values is large enough", 0.5, high)
    # Of two that are as pure the one with values: it says more than that a value is missing.
    inside = max(looked, key=lambda part: (_beyond(part, low, high), part[name].notna().any()))
    value = float(inside["churned"].mean())
    failed = not low <= value <= high
    given = inside[name].dropna()
    called = "missing" if not len(given) else f"{given.min()}" + (f" to {given.max()}" if given.nunique() > 1 else "")
    keys = keys_of(inside)
    told = f"{name} {called}: {value:.1%} of {len(inside):,} training rows churned, {low:.0%} to {high:.0%} is believed"
    told += f", such as {'; '.join(keys)}" if failed else ""
    return Finding(f"{name}: purest group", failed, told, round(value, 6), high, len(inside), keys if failed else [])


def _believed(base_rate: float, limits: dict[str, float]) -> tuple[float, float]:
    """Between which churn rates of a group a feature is believed, where `base_rate` of all rows churned."""
    low = 0.0 if 1 - base_rate >= limits["common_outcome"] else limits["group_rate_from"]
    return low, 1.0 if base_rate >= limits["common_outcome"] else limits["group_rate_to"]


def _beyond(part: pd.DataFrame, low: float, high: float) -> float:
    """How far a group's churn rate lies outside the believed ones; below 0 inside them."""
    rate = float(part["churned"].mean())
    return max(low - rate, rate - high)


def _rates(group: NDArray[Any], churned: NDArray[Any], part: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Churn rate and size of every group within a part of the rows; an empty group has rate 0.5."""
    import numpy as np

    most = int(group.max()) + 1
    size = np.bincount(group[part], minlength=most)
    bought = np.bincount(group[part], weights=churned[part].astype("float64"), minlength=most)
    return np.where(size > 0, bought / np.maximum(size, 1), 0.5), size
