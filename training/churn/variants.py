"""Churn's models to roll out on purpose (training.variants): a good one, and four that only live traffic gives away."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING

from training import evaluate
from training.churn import leaky, model
from training.churn.train import log_model
from training.datasets import Dataset
from training.variants import GOOD, Made, Variant

if TYPE_CHECKING:
    import pandas as pd
    import xgboost

    Fit = Callable[[Dataset, int], xgboost.Booster]

COPIES = 400
"""How often the slow model holds each tree, with leaves as much smaller: the same answers, that much later."""

SWAPPED = {"days_since_last_order": "orders_total", "orders_total": "days_since_last_order"}
MOSTLY_MISSING = ("avg_ticket_30d", "days_between_orders", "days_since_last_order", "orders_total", "orders_90d")


def _retrained(data: Dataset, seed: int) -> xgboost.Booster:
    return model.fit(data.part(test=False), data.features, model.Params(seed=seed))


def _leaky(data: Dataset, seed: int) -> xgboost.Booster:
    """Trained on what was known only later: excellent in evaluation, wrong in service."""
    twin = leaky.twin(data)
    return model.fit(twin.part(test=False), data.features, model.Params(seed=seed))


def _swapped(data: Dataset, seed: int) -> xgboost.Booster:
    """Two inputs change places, as when a list of columns is reordered on one side only."""
    rows: pd.DataFrame = data.part(test=False).rename(columns=SWAPPED)
    import xgboost

    matrix = xgboost.DMatrix(model.matrix(rows, data.features), label=rows["churned"].to_numpy(), nthread=1)
    params = {**model.Params(seed=seed).booster(data.features), "monotone_constraints": None}
    return xgboost.train({k: v for k, v in params.items() if v is not None}, matrix, num_boost_round=100)


def _features(data: Dataset, seed: int) -> xgboost.Booster:
    """Inputs that most customers lack: it scores all the same, from next to nothing."""
    kept = [name for name in data.features if name in MOSTLY_MISSING]
    return model.fit(data.part(test=False), kept, model.Params(seed=seed))


def _slow(data: Dataset, seed: int) -> xgboost.Booster:
    """The good model as an ensemble of copies of itself: the same scores, by that many times the trees."""
    import xgboost

    whole = json.loads(bytes(_retrained(data, seed).save_raw("json")))
    learned = whole["learner"]["gradient_booster"]["model"]
    trees = []
    for tree in learned["trees"]:
        weights = [
            value / COPIES if left == -1 else value
            for value, left in zip(tree["split_conditions"], tree["left_children"], strict=True)
        ]
        trees.append({**tree, "split_conditions": weights})
    many = [{**tree, "id": number} for number, tree in enumerate(trees * COPIES)]
    learned["trees"], learned["tree_info"] = many, [0] * len(many)
    learned["gbtree_model_param"]["num_trees"] = str(len(many))
    learned["iteration_indptr"] = list(range(len(many) + 1))
    found = xgboost.Booster({"nthread": 1})
    found.load_model(bytearray(json.dumps(whole).encode()))
    return found


def _variant(what: str, fit: Fit) -> Variant:
    def make(data: Dataset, seed: int) -> Made:
        booster, test = fit(data, seed), data.part(test=True)
        metrics = evaluate.metrics(test["churned"].to_numpy(), model.probability(booster, test))
        return Made(metrics, lambda named: log_model(booster, test, booster.feature_names or [], named))

    return Variant(what, make)


VARIANTS = {
    GOOD: _variant("the same model from another seed", _retrained),
    "leaky": _variant("trained on the leaky twin: on what was known only later", _leaky),
    "swapped": _variant("two of its inputs have changed places", _swapped),
    "slow": _variant(f"{COPIES} times the trees for the same scores", _slow),
    "features": _variant("most of its inputs are missing for most customers", _features),
}
