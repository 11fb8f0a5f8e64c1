"""Churn's part of training: boosted trees, beside two baselines, on the customers of one test day."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import date
from typing import TYPE_CHECKING, Any

from plumbline import shop
from plumbline.registry.trusted_models import TrustedModel
from plumbline.state import releases
from plumbline.state.trainings import Place
from products.churn import CHURN, FEATURES
from training import evaluate, point_in_time
from training.churn import activity, model, snapshots, train
from training.datasets import Dataset
from training.shelf import Fitted

if TYPE_CHECKING:
    import pandas as pd
    import xgboost
    from numpy.typing import NDArray

ASKED = ["customer_id", "event_timestamp", "request_time"]


class ChurnShelf:
    """See training.shelf.Shelf."""

    product = CHURN
    model_file = "model.ubj"
    pins = ("data_version", "orders_version")
    named: Mapping[str, str] = {
        **{name: name for name in (*pins, "dataset_id", "cutoff", "release_id", "feature_service")},
        "dataset_hash": "content_hash",
    }
    shown = ("log_loss", "roc_auc", "brier")

    def description(self) -> str:
        return f"P(no order in the next {shop.page().horizon_days} days)."

    def params(self) -> dict[str, Any]:
        return asdict(model.Params())

    def fit(self, data: Dataset) -> Fitted:
        return train.fit(data)

    def log_loss(self, trusted: TrustedModel, service: str, data: Dataset) -> float:
        test = data.part(test=True)
        rows = test if service == data.about["feature_service"] else _features_of(service, data)
        return evaluate.metrics(test["churned"].to_numpy(), model.probability(trusted.booster, rows))["log_loss"]

    def inputs(self, content: bytes) -> str:
        return ", ".join(_loaded(content).feature_names or [])

    def scores(self, content: bytes, data: Dataset) -> NDArray[Any]:
        return model.probability(_loaded(content), data.part(test=True))

    def place(self, about: Mapping[str, Any]) -> Place:
        return Place(CHURN, int(about["release_id"]))

    def as_of(self, about: Mapping[str, Any]) -> str:
        return str(about["labels_until"])


SHELF = ChurnShelf()


def _loaded(content: bytes) -> xgboost.Booster:
    import xgboost

    booster = xgboost.Booster({"nthread": 1})
    booster.load_model(bytearray(content))
    return booster


def _features_of(service: str, data: Dataset) -> pd.DataFrame:
    """Another FeatureService's features for the test rows, at the dataset's release."""
    from feature_repo import store as feature_store

    release = releases.read(CHURN.name, int(data.about["release_id"]))
    version = release.version(FEATURES)
    days = [date.fromisoformat(data.about["observations"]["test"])]
    store = feature_store.at_release(CHURN, release, streams=True)
    activity.version(release, store, service)
    asked = snapshots.entity_df(version, days)
    found = point_in_time.historical(store, service, FEATURES, version, asked)
    return point_in_time.aligned(found, data.part(test=True)[ASKED], snapshots.KEY)
