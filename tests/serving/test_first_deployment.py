"""The first model becomes champion by the first deployment; no other does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from plumbline.servers import online_store
from plumbline.settings import settings
from plumbline.state import ledger
from products.churn import CHURN
from serving import loaded_model as registry
from serving.deploy import deploy
from serving.errors import ServingError
from tests.serving.made_up_customers import FULL, RELEASE, mark_online

pytestmark = pytest.mark.usefixtures("_home_settings")


@pytest.fixture
def _no_champion(serving_home: Path) -> Iterator[None]:
    client = registry.client()
    client.delete_registered_model_alias(CHURN.model, registry.CHAMPION)
    yield
    client.set_registered_model_alias(CHURN.model, registry.CHALLENGER, "1")


@pytest.mark.usefixtures("_no_champion")
def test_the_challenger_scores_a_customer_and_becomes_champion_once() -> None:
    done = deploy(CHURN)
    assert (done["state"], done["champion"]) == ("done", "1")
    assert done["tried"]["customer_id"] == FULL
    assert done["tried"]["release_id"] == RELEASE
    assert 0 < done["tried"]["churn_probability"] < 1
    events = [event["state"] for event in ledger.events("churn") if event["stage"] == "deploy"]
    assert events[-2:] == ["START", "COMPLETE"]
    again = deploy(CHURN)
    assert (again["state"], again["champion"]) == ("unchanged", "1")
    assert "canary" in again["why"]


@pytest.mark.usefixtures("_no_champion")
def test_without_a_challenger_it_says_what_to_run() -> None:
    registry.client().delete_registered_model_alias(CHURN.model, registry.CHALLENGER)
    with pytest.raises(ServingError, match="plumb register"):
        deploy(CHURN)


@pytest.mark.usefixtures("_no_champion")
def test_with_nothing_materialized_there_is_no_champion() -> None:
    online_store.client().delete(CHURN.online_mark)
    try:
        with pytest.raises(ServingError, match="plumb materialize"):
            deploy(CHURN)
    finally:
        mark_online()
    assert registry.find(CHURN, registry.CHAMPION) is None


def test_without_a_registry_none_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLUMBLINE_HOME", str(tmp_path))
    settings.cache_clear()
    with pytest.raises(ServingError, match="no model registry"):
        deploy(CHURN)
    assert not (tmp_path / "mlflow").exists()
