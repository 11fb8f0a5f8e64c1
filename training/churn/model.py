"""The churn model: gradient-boosted trees, fixed parameters, the same bytes from the same data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from plumbline import shop
from training.errors import TrainingError

if TYPE_CHECKING:
    import pandas as pd
    import xgboost
    from numpy.typing import NDArray


def _stated(name: str) -> Any:
    """A field whose default is what the shop's page states."""
    return field(default_factory=lambda: getattr(shop.page().model, name))


def monotone() -> Mapping[str, int]:
    """What cannot honestly go the other way, all else equal, by the shop's page."""
    return shop.page().model.monotone


@dataclass(frozen=True)
class Params:
    """Hyperparameters, by default those of the shop's page."""

    rounds: int = _stated("rounds")
    max_depth: int = _stated("max_depth")
    learning_rate: float = _stated("learning_rate")
    min_child_weight: float = _stated("min_child_weight")
    subsample: float = _stated("subsample")
    colsample_bytree: float = _stated("colsample_bytree")
    reg_lambda: float = _stated("reg_lambda")
    seed: int = _stated("seed")

    def booster(self, features: Sequence[str]) -> dict[str, Any]:
        """xgboost's own parameters. One thread: it retrains byte for byte, and two on busy cores were slower."""
        given = {name: value for name, value in asdict(self).items() if name != "rounds"}
        signs = ",".join(str(monotone().get(name, 0)) for name in features)
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

    unknown = sorted(set(monotone()) - set(features))
    if unknown:
        raise TrainingError(
            f"monotone constraints on {', '.join(unknown)}, which the feature service does not give; take "
            "what is missing out of model.monotone in the shop's page (shop.yaml), or keep it in the service"
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
