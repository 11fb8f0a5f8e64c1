"""The churn model: gradient-boosted trees, fixed parameters, the same bytes from the same data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from training.errors import TrainingError

if TYPE_CHECKING:
    import pandas as pd
    import xgboost
    from numpy.typing import NDArray

MONOTONE = {"days_since_last_order": 1, "orders_total": -1, "orders_90d": -1}
"""What cannot honestly go the other way, all else equal: a longer silence does not make a customer safer, more orders
do not make them likelier to leave. The mean gap has no sign: a slow buyer's silence says less."""


@dataclass(frozen=True)
class Params:
    """Hyperparameters, chosen once on the last training day of CDNOW as validation, never on the test day."""

    rounds: int = 150
    max_depth: int = 4
    learning_rate: float = 0.05
    min_child_weight: float = 100.0
    subsample: float = 0.8
    colsample_bytree: float = 0.8
    reg_lambda: float = 5.0
    seed: int = 1997

    def booster(self, features: Sequence[str]) -> dict[str, Any]:
        """xgboost's own parameters. One thread: it retrains byte for byte, and two on busy cores were slower."""
        given = {name: value for name, value in asdict(self).items() if name != "rounds"}
        signs = ",".join(str(MONOTONE.get(name, 0)) for name in features)
        return {
            **given,
            "objective": "binary:logistic",
            "tree_method": "hist",
            "nthread": 1,
            "monotone_constraints": f"({signs})",
        }


def matrix(rows: pd.DataFrame, features: Sequence[str]) -> pd.DataFrame:
    """The model's input: these columns in this order, all float64, missing as NaN. The model's signature is this.

    Raises TrainingError when a feature is not among the columns, or is text.
    """
    from pandas.api.types import is_bool_dtype, is_numeric_dtype

    absent = [name for name in features if name not in rows.columns]
    if absent:
        raise TrainingError(f"the rows lack the model inputs {', '.join(absent)}")
    texts = [name for name in features if not (is_numeric_dtype(rows[name]) or is_bool_dtype(rows[name]))]
    if texts:
        raise TrainingError(f"the model takes numbers, {', '.join(texts)} are not: encode them in customers.sql")
    return rows[list(features)].astype("float64")


def fit(rows: pd.DataFrame, features: Sequence[str], params: Params) -> xgboost.Booster:
    """Trains on rows with `churned`. Same rows, features, params and environment give the same model, byte for byte.

    Raises TrainingError when a monotone constraint names a feature that the data does not have.
    """
    import xgboost

    unknown = sorted(set(MONOTONE) - set(features))
    if unknown:
        raise TrainingError(
            f"monotone constraints on {', '.join(unknown)}, which the feature service does not give; take "
            "what is missing out of MONOTONE in training/churn/model.py, or keep it in the service"
        )
    data = xgboost.DMatrix(matrix(rows, features), label=rows["churned"].to_numpy(), nthread=1)
    return xgboost.train(params.booster(features), data, num_boost_round=params.rounds)


def probability(booster: xgboost.Booster, rows: pd.DataFrame) -> NDArray[Any]:
    """P(churn) for each row, from the columns that the booster names."""
    import xgboost

    found: NDArray[Any] = booster.predict(xgboost.DMatrix(matrix(rows, booster.feature_names or []), nthread=1))
    return found


def serialized(booster: xgboost.Booster) -> bytes:
    """The model as UBJSON, xgboost's own format."""
    return bytes(booster.save_raw("ubj"))
