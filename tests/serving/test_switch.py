"""A later champion comes by a switch after a shadow check; it may read another feature service than the last."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xgboost

from plumbline.state import ledger
from products.churn import CHURN
from serving import loaded_model as registry
from serving.churn import log as outcome_log
from serving.churn import shadow
from serving.churn.scorer import Scorer
from serving.deploy import deploy
from serving.errors import ServingError
from tests.serving import made_up_customers
from tests.serving.made_up_customers import FULL, KNOWN, NOW, SPARSE

pytestmark = pytest.mark.usefixtures("_home_settings")


def register(names: list[str], service: str) -> str:
    """A small booster on these columns, registered as `plumb register` does; its version."""
    rows = pd.DataFrame(np.random.default_rng(5).integers(0, 2000, (200, len(names))).astype("float64"), columns=names)
    label = (rows[names[0]] > 1000).astype(int)
    booster = xgboost.train({"objective": "binary:logistic", "nthread": 1}, xgboost.DMatrix(rows, label=label), 5)
    experiment = registry.client().get_experiment_by_name(CHURN.model).experiment_id
    return made_up_customers.register(booster, experiment, service)


@pytest.fixture(scope="module")
def newer(serving_home: Path) -> Iterator[str]:
    """A model of churn_v33, a service beside churn_v1 with two of its features and one that churn_v1 does not give."""
    from feast import FeatureService

    from feature_repo import store as feature_store
    from feature_repo.churn.definitions import churn_recency, customer_features

    two = customer_features[["orders_total", "avg_ticket_30d", "last_order_day"]]
    feature_store.open_store(CHURN).apply([FeatureService(name="churn_v33", features=[two, churn_recency])])
    yield register(["days_since_last_order", "orders_total", "avg_ticket_30d", "last_order_day"], "churn_v33")
    feature_store.open_store(CHURN).delete_feature_service("churn_v33")


@pytest.fixture
def _champion(serving_home: Path) -> Iterator[None]:
    client = registry.client()
    client.set_registered_model_alias(CHURN.model, registry.CHAMPION, "1")
    yield
    client.set_registered_model_alias(CHURN.model, registry.CHAMPION, "1")
    client.set_registered_model_alias(CHURN.model, registry.CHALLENGER, "1")
    client.delete_registered_model_alias(CHURN.model, registry.PREVIOUS)


def champion() -> str:
    found = registry.find(CHURN, registry.CHAMPION)
    assert found is not None
    return str(found.version)


@pytest.mark.usefixtures("_champion")
def test_a_challenger_of_a_newer_service_takes_over_and_the_old_champion_comes_back(newer: str) -> None:
    registry.client().set_registered_model_alias(CHURN.model, registry.CHALLENGER, newer)
    done = deploy(CHURN, "challenger")
    assert (done["state"], done["champion"], done["previous"], champion()) == ("done", newer, "1", newer)
    assert done["customers"] == 2, "all of the release's customers"
    assert "→" in done["mean_score"] and f"customer {FULL}: " in done["largest_moves"]
    assert Scorer("champion").model.feature_service == "churn_v33"
    assert [event["state"] for event in ledger.events("churn") if event["stage"] == "deploy"][-2:] == [
        "START",
        "COMPLETE",
    ]
    again = deploy(CHURN, "challenger")
    assert (again["state"], again["champion"]) == ("unchanged", newer)
    back = deploy(CHURN, "previous")
    assert (back["champion"], back["previous"], champion()) == ("1", newer, "1")
    assert Scorer("champion").model.feature_service == "churn_v1", "though it is not the newest service any more"


@pytest.mark.usefixtures("_champion")
def test_both_services_score_the_same_rows(newer: str) -> None:
    scored = {version: Scorer(version).score([FULL, SPARSE]).predictions for version in ("1", newer)}
    for old, new in zip(scored["1"], scored[newer], strict=True):
        assert old.row.values["days_since_last_order"] == new.row.values["days_since_last_order"]
    assert [p.missing for p in scored[newer]] == [[], ["avg_ticket_30d"]]


@pytest.mark.usefixtures("_champion")
def test_a_model_that_misses_online_what_the_release_holds_stays_out(
    newer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = shadow._online_rows

    def held(columns: list[str] | None) -> pd.DataFrame:
        return rows(columns) if columns else rows(columns).fillna({"avg_ticket_30d": 1.0})

    monkeypatch.setattr(shadow, "_online_rows", held)
    with pytest.raises(ServingError, match=r"avg_ticket_30d \(1\)\. Run `plumb materialize`"):
        deploy(CHURN, newer)
    assert champion() == "1"
    assert registry.find(CHURN, registry.PREVIOUS) is None


@pytest.mark.usefixtures("_champion")
def test_who_was_asked_about_last_is_among_those_checked() -> None:
    assert set(shadow.customers(400)) == {FULL, SPARSE}
    row = {"request_id": "test", "logged_at": NOW, "score": 0.5, "model_version": "1", "track": "stable"}
    outcome_log.append([{**row, "customer_id": customer} for customer in (KNOWN[0], SPARSE)])
    assert shadow.customers(1, recent=5) == [FULL, SPARSE], "the other one is not in the release"


@pytest.mark.usefixtures("_champion")
def test_there_must_be_such_a_model() -> None:
    with pytest.raises(ServingError, match="has no 'previous'; versions are .*once a champion was replaced"):
        deploy(CHURN, "previous")
    assert deploy(CHURN, "1")["state"] == "unchanged"
