"""Churn's model and two baselines on a release's dataset, and how the model is logged."""

from __future__ import annotations

from dataclasses import asdict
from datetime import date
from importlib import metadata
from typing import TYPE_CHECKING, Any

from plumbline import clock
from plumbline.lake import tables as lake
from plumbline.progress import say
from products.churn import ORDERS
from training import evaluate
from training.churn import baselines, labels, model, plots
from training.datasets import Dataset
from training.errors import TrainingError
from training.shelf import Fitted

if TYPE_CHECKING:
    import pandas as pd
    import xgboost
    from numpy.typing import NDArray

SERVED_WITH = ("mlflow", "numpy", "pandas", "scipy", "xgboost-cpu")
"""What loading and scoring the model needs. Named by hand: inference finds both `xgboost` and `xgboost-cpu`."""

EXAMPLE_ROWS = 3

PREFIXES = {"model": "", "BG/NBD": "baseline_bgnbd_", "recency": "baseline_recency_"}
"""How the names of their metrics begin."""


def fit(data: Dataset) -> Fitted:
    """The model and its baselines, fitted and measured. Raises TrainingError when the data does not allow it."""
    training, test = data.part(test=False), data.part(test=True)
    churned = test["churned"].to_numpy()
    say(f"training on {len(training):,} rows of {data.about['dataset_id']}")
    booster = model.fit(training, data.features, model.Params())
    say("baselines: days since the last order, BG/NBD")
    scores, fitted = _scores(booster, data, training, test)
    metrics = {"base_rate": round(float(churned.mean()), 6)}
    for name, probability in scores.items():
        metrics |= evaluate.metrics(churned, probability, PREFIXES[name])
    gain = {str(k): _number(v) for k, v in booster.get_score(importance_type="total_gain").items()}
    title = f"{data.about['dataset_id']}, test day {data.about['observations']['test']}"
    return Fitted(
        model.serialized(booster),
        metrics,
        _message(metrics),
        draw=lambda folder: plots.draw(folder, churned, scores, gain, title),
        log=lambda named: log_model(booster, test, data.features, named),
        also=fitted,
    )


def _scores(
    booster: xgboost.Booster, data: Dataset, training: pd.DataFrame, test: pd.DataFrame
) -> tuple[dict[str, NDArray[Any]], dict[str, float]]:
    """P(churn) of the test rows by the model and the baselines, and BG/NBD's parameters, if it has a best fit."""
    observed = date.fromisoformat(data.about["observations"]["test"])
    orders = _orders_known(data.about["orders_version"], observed)
    days = "days_since_last_order"
    if days not in data.features:
        raise TrainingError(
            f"the recency baseline needs {days}, which {data.about['feature_service']} does not give: keep it in the "
            "service, the model is judged beside it"
        )
    scores = {
        "model": model.probability(booster, test),
        "recency": baselines.recency(training[days].to_numpy(), training["churned"].to_numpy(), test[days].to_numpy()),
    }
    bgnbd = baselines.bgnbd(orders, observed, test["customer_id"].to_numpy(), labels.horizon_days())
    if bgnbd is None:
        say("BG/NBD has no best fit to these orders: the model is judged beside the other baseline alone")
        return scores, {}
    scores["BG/NBD"], fitted = bgnbd
    return scores, {f"bgnbd_{name}": round(value, 6) for name, value in asdict(fitted).items()}


def _orders_known(pinned: str, observed: date) -> pd.DataFrame:
    """The orders that were known when the day was observed, from a name like `delta:analytics.orders@v=3`."""
    import pyarrow.compute as pc

    version = int(pinned.rpartition("=")[2])
    orders = lake.open_table(ORDERS, version).to_pyarrow_table(columns=["customer_id", "order_date", "known_at"])
    known = orders.filter((pc.field("known_at") < clock.end_of(observed)) & (pc.field("order_date") <= observed))
    frame: pd.DataFrame = known.select(["customer_id", "order_date"]).to_pandas(date_as_object=False)
    return frame


def log_model(booster: xgboost.Booster, test: pd.DataFrame, features: list[str], named: dict[str, str]) -> Any:
    """Logs a model into the MLflow run that is open, in xgboost's own format, with a signature of its columns."""
    import mlflow.xgboost
    from mlflow.models import infer_signature

    example = model.matrix(test.head(EXAMPLE_ROWS), features)
    return mlflow.xgboost.log_model(
        booster,
        name="model",
        model_format="ubj",
        signature=infer_signature(example, model.probability(booster, test.head(EXAMPLE_ROWS))),
        input_example=example,
        pip_requirements=[f"{name}=={metadata.version(name)}" for name in SERVED_WITH],
        metadata=named,
    )


def _number(value: float | list[float]) -> float:
    return float(value[0] if isinstance(value, list) else value)


def _message(m: dict[str, float]) -> str:
    others = {name: prefix for name, prefix in PREFIXES.items() if prefix and f"{prefix}log_loss" in m}
    loss, area = (
        " and ".join(f"{name} {m[prefix + of]:.4f}" for name, prefix in others.items())
        for of in ("log_loss", "roc_auc")
    )
    return f"log loss {m['log_loss']:.4f}, against {loss}; ROC-AUC {m['roc_auc']:.4f}, against {area}"
