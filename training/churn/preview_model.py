"""What a changed feature would do to the model: trained twice on a sample, with the released columns and the changed.

The same customers, days, labels, split and parameters; only the columns differ. The answer is a difference with its
95 % interval from a paired bootstrap over the test rows. It says nothing of what another training seed would move.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from feature_repo import store as feature_store
from plumbline.state.releases import Release
from products.churn import CHURN, ORDERS
from training import evaluate
from training.churn import dataset, model, split
from training.churn.snapshots import BOOKKEEPING
from training.errors import TrainingError

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

RESAMPLES = 200
SEED = 1997
METRICS = ("log_loss", "roc_auc", "pr_auc")


def difference(release: Release, before: pd.DataFrame, after: pd.DataFrame) -> dict[str, Any]:
    """Metrics with the released rows and with the trial's rows of `features.customers`, and their difference.

    Raises TrainingError when history is too short, or the sample's test day has customers of one kind only.
    """
    days = sorted(set(before["snapshot_date"].dt.date))
    observed = split.choose(days, release.as_of)
    old, new = _paired(before, after, observed)
    inputs = _inputs(old, new)
    churned = dataset.churned(release.version(ORDERS), old.rename(columns={"event_time": "event_timestamp"}))
    is_test = (old["snapshot_date"].dt.date == observed.test).to_numpy()
    truth = churned.to_numpy()[is_test]
    if truth.all() or not truth.any():
        raise TrainingError(f"all {len(truth)} sampled customers of {observed.test} have the same label: sample more")
    scores = []
    for rows, names in ((old, inputs["before"]), (new, inputs["after"])):
        labelled = rows.assign(churned=churned)
        booster = model.fit(labelled[~is_test], names, model.Params())
        scores.append(model.probability(booster, labelled[is_test]))
    values = [evaluate.metrics(truth, score) for score in scores]
    low, high = _interval(truth, *scores)
    return {
        "customers": int(old["customer_id"].nunique()),
        "rows": {"train": int((~is_test).sum()), "test": int(is_test.sum())},
        "test_day": str(observed.test),
        "inputs": inputs,
        "metrics": {
            name: {
                "before": values[0][name],
                "after": values[1][name],
                "difference": values[1][name] - values[0][name],
                "low": low[name],
                "high": high[name],
            }
            for name in METRICS
        },
    }


def _paired(
    before: pd.DataFrame, after: pd.DataFrame, observed: split.Observations
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The observation rows that both have, in one order, with the on-demand features of each."""
    import pandas as pd

    key = ["snapshot_date", "customer_id"]
    frames = []
    for frame in (before, after):
        kept = frame[frame["snapshot_date"].dt.date.isin(observed.days) & (frame["orders_total"] > 0)]
        stamp = pd.to_datetime(kept["event_time"], utc=True).astype("datetime64[us, UTC]")
        stamped = kept.assign(event_time=stamp)
        frames.append(stamped.set_index(key).sort_index())
    both = frames[0].index.intersection(frames[1].index)
    old, new = (feature_store.on_demand(CHURN, frame.loc[both].reset_index()) for frame in frames)
    return old, new


def _inputs(old: pd.DataFrame, new: pd.DataFrame) -> dict[str, list[str]]:
    """The model's columns on both sides: the newest service's, as far as they are there, and what only one side has."""
    import pandas as pd

    stored, asked = feature_store.service_inputs(CHURN)
    named = [name for name in (*stored, *asked) if name not in BOOKKEEPING]

    def inputs(here: pd.DataFrame, there: pd.DataFrame) -> list[str]:
        alone = [n for n in here.columns if n not in there.columns and pd.api.types.is_numeric_dtype(here[n])]
        return [*(n for n in named if n in here.columns), *(n for n in alone if n not in named)]

    return {"before": inputs(old, new), "after": inputs(new, old)}


def _interval(
    truth: NDArray[Any], before: NDArray[Any], after: NDArray[Any]
) -> tuple[dict[str, float], dict[str, float]]:
    """2.5 % and 97.5 % of each metric's difference over resampled test rows, the same rows on both sides."""
    import numpy as np

    random = np.random.default_rng(SEED)
    found: dict[str, list[float]] = {name: [] for name in METRICS}
    while len(found["log_loss"]) < RESAMPLES:
        rows = random.integers(0, len(truth), len(truth))
        if truth[rows].all() or not truth[rows].any():
            continue
        old, new = (evaluate.metrics(truth[rows], score[rows]) for score in (before, after))
        for name in METRICS:
            found[name].append(new[name] - old[name])
    bounds = {name: np.quantile(values, [0.025, 0.975]) for name, values in found.items()}
    return tuple({name: float(bound[side]) for name, bound in bounds.items()} for side in (0, 1))  # type: ignore[return-value]
