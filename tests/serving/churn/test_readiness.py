"""Ready means that a customer is scored: not that a model is in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from products.churn import CHURN
from serving.deploy import deploy
from tests.serving.made_up_customers import EXPIRED, FULL

pytestmark = pytest.mark.usefixtures("_home_settings")

MODEL = "churn-predictor"


class Broken:
    """A booster that fails at every request."""

    def inplace_predict(self, rows: Any) -> Any:
        raise RuntimeError("feature_names mismatch")


@pytest.fixture
def predictor(serving_home: Path) -> Iterator[Any]:
    deploy(CHURN)
    from serving.churn.log import append
    from serving.churn.predictor import ChurnPredictor
    from serving.outcome_log import OutcomeLog

    log = OutcomeLog(CHURN, append)
    made = ChurnPredictor("champion", log)
    made.load()
    yield made
    made.close()
    log.close()


def ready(predictor: Any, name: str = MODEL, anew: bool = True, **options: bool) -> bool:
    """What the health endpoints are told; `anew` forgets the last probe."""
    from kserve.model_repository import ModelRepository

    from serving.rest import Plane

    if anew:
        predictor._probed_at = None
    repository = ModelRepository()
    repository.update(predictor)
    plane = Plane(predictor, model_registry=repository)

    async def asked() -> tuple[bool, bool]:
        return await plane.model_ready(name, **options), await plane.ready()

    of_model, of_server = asyncio.run(asked())
    assert options or of_model == of_server
    return of_model


def break_model(predictor: Any) -> None:
    predictor.scorer.booster = Broken()


def test_a_predictor_that_scores_is_ready(predictor: Any) -> None:
    assert ready(predictor)


def test_one_that_answers_500_to_every_request_is_not_and_says_why(
    predictor: Any, caplog: pytest.LogCaptureFixture
) -> None:
    whole = predictor.scorer.booster
    break_model(predictor)
    assert not ready(predictor)
    assert "feature_names mismatch" in caplog.text
    predictor.scorer.booster = whole
    assert not ready(predictor, anew=False), "the last probe still holds"
    assert ready(predictor)


def test_a_request_does_not_wait_for_a_probe(predictor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    break_model(predictor)
    assert ready(predictor, disable_predictor_health_check=True)


def test_however_often_it_is_asked_one_customer_is_scored(predictor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[int]] = []
    whole = predictor.scorer.score
    monkeypatch.setattr(predictor.scorer, "score", lambda customers: (asked.append(customers), whole(customers))[1])
    monkeypatch.setattr(predictor.scorer.features, "some_entities", lambda most: [FULL, FULL])
    ready(predictor)
    for _ in range(20):
        ready(predictor, anew=False)
    assert len(asked) == 1 and len(asked[0]) == 1


def test_a_probe_is_made_again_after_a_while(predictor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from serving import predictor as module

    assert ready(predictor)
    break_model(predictor)
    monkeypatch.setattr(module, "PROBE_SECONDS", 0.0)
    assert not ready(predictor, anew=False)


def test_a_refusal_is_an_answer(predictor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from serving.errors import Refused

    def refuse(customers: list[int]) -> None:
        raise Refused(503, "the online store does not answer")

    monkeypatch.setattr(predictor.scorer, "score", refuse)
    assert ready(predictor)


def test_a_store_without_a_customer_says_nothing_against_the_predictor(
    predictor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_model(predictor)
    monkeypatch.setattr(predictor.scorer.features, "some_entities", lambda most: [])
    assert ready(predictor)


def test_whoever_is_tried_has_a_row(predictor: Any) -> None:
    from feature_repo.online_rows import OnlineRows

    tried = predictor.scorer.features.some_entities(10)
    assert len(tried) == 10
    assert set(tried) <= OnlineRows(CHURN, CHURN.view).entities()


def test_a_customer_whose_row_is_expired_is_passed_over(predictor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    break_model(predictor)
    monkeypatch.setattr(predictor.scorer.features, "some_entities", lambda most: [EXPIRED, FULL])
    assert not ready(predictor)


def test_one_without_its_model_is_not_ready(serving_home: Path) -> None:
    from serving.churn.log import append
    from serving.churn.predictor import ChurnPredictor
    from serving.outcome_log import OutcomeLog

    log = OutcomeLog(CHURN, append)
    unloaded = ChurnPredictor("champion", log)
    assert not ready(unloaded)
    unloaded.close()
    log.close()
