"""What came of an answer about a picture: by whom it is said, when, and what a judge makes of it."""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from typing import Any

import pytest

from plumb.demo import simulation
from plumb.demo.simulated_images import Callers
from plumb.demo.simulation import SimulationError
from plumbline import clock
from plumbline.lake import tables as lake
from plumbline.state.trainings import Place
from products.churn import CHURN
from products.images import IMAGES
from serving.images import log as outcome_log
from serving.images import outcomes
from serving.judge.server import now
from serving.rollout import manifests
from tests import images_home
from tests.images_home import CLASSES, SECOND, Picture


def answered(
    request: str, image: str, label: str, score: float, canary: bool = False, at: Any = None
) -> dict[str, Any]:
    """A row of the outcome log."""
    at = at or clock.wall()
    side = {"track": "canary", "revision": "new"} if canary else {"track": "stable", "revision": "old"}
    head = {"request_id": request, "at": at, "logged_at": at, "image_id": image, "asked_by": "id", "features": "{}"}
    return {**head, "model_version": "1", "label": label, "score": score, **side}


def landed() -> list[Picture]:
    return images_home.pictures(100)


def test_a_reviewer_says_what_the_picture_is_known_to_show_now(images: Place) -> None:
    first, second, unlabelled = landed()[:3]
    images_home.review({first.image_id: "owl", unlabelled.image_id: None}, SECOND)  # type: ignore[dict-item]
    images_home.publish(SECOND)
    callers = Callers(bytes_every=0)
    known = callers.begin()
    assert {first.image_id, second.image_id, unlabelled.image_id} <= set(known)

    def outcome(picture: Picture, label: str, probability: float) -> dict[str, Any] | None:
        return callers.outcome("r", {"image_id": picture.image_id, "label": label, "probability": probability})

    agreed, wrong = outcome(first, "owl", 0.8), outcome(second, "owl", 0.79)
    assert agreed and wrong and second.label != "owl" and first.label != "owl"
    assert (agreed["label"], agreed["agreed"], agreed["reviewed"]) == ("owl", True, False)
    assert (wrong["label"], wrong["agreed"], wrong["reviewed"]) == (second.label, False, True)
    assert agreed["simulated"] and wrong["simulated"]
    assert outcome(unlabelled, "owl", 0.9) is None, "nobody knows what it shows"


def test_one_request_in_so_many_sends_a_picture(images: Place) -> None:
    callers = Callers(bytes_every=3)
    callers._pictures = ["one", "other"]
    sent = [next(iter(callers.instance(number, "an id"))) for number in range(7)]
    assert sent == ["image", "image_id", "image_id"] * 2 + ["image"]
    assert [callers.instance(number, "an id")["image"]["b64"] for number in (0, 3, 6)] == ["one", "other", "one"]


def test_each_logged_answer_gets_one_outcome(images: Place) -> None:
    with pytest.raises(SimulationError, match="nothing was predicted yet"):
        simulation.outcomes(IMAGES)
    first, *_, second = landed()[:4]
    outcome_log.append(
        [
            answered("a", first.image_id, first.label, 0.95),
            answered("a", second.image_id, first.label, 0.5),
            answered("b", "0" * 32, "cat", 0.9),
        ]
    )
    told = simulation.outcomes(IMAGES)
    assert told == {"simulated": True, "outcomes": 2, "agreed": 1, "reviewed": 1}
    assert simulation.outcomes(IMAGES)["outcomes"] == 0
    rows = lake.open_table(IMAGES.outcomes).to_pyarrow_table().to_pylist()
    assert {(row["request_id"], row["image_id"]) for row in rows} == {("a", first.image_id), ("a", second.image_id)}
    assert all(row["simulated"] for row in rows)


def a_canary(begun: datetime, swapped: bool, unsure: bool) -> None:
    """400 answers of now, a third of them of a canary: one that takes cats for dogs, or is seldom sure, or neither; and
    one after their outcomes."""
    rng = random.Random(1997)  # noqa: S311
    places = {"cat": "dog", "dog": "cat"}
    for first in range(0, 400, 100):
        rows, known = [], []
        for number in range(first, first + 100):
            canary, real = rng.random() < 0.33, rng.choice(CLASSES)
            label = places.get(real, real) if canary and swapped else real
            score = rng.uniform(0.3 if canary and unsure else 0.75, 1.0)
            rows.append(answered(f"r{number}", "i", label, score, canary, begun + timedelta(seconds=number)))
            known.append(outcomes.row(f"r{number}", "i", label, score, real))
        outcome_log.append(rows)
        outcomes.append(known)
    outcome_log.append([answered("the last", "i", "cat", 0.9, False, clock.wall() + timedelta(seconds=30))])


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize(
    ("swapped", "unsure", "bad"),
    [(False, False, set()), (True, False, {"agreement_rate"}), (False, True, {"review_load"})],
)
def test_the_judge_tells_the_kpi_that_is_worse_and_no_other(swapped: bool, unsure: bool, bad: set[str]) -> None:
    template = manifests.kpis(CHURN)
    assert now(IMAGES, template) == []
    a_canary(clock.wall() - timedelta(minutes=10), swapped, unsure)
    verdicts = {row["kpi"]: row for row in now(IMAGES, template)}
    assert list(verdicts) == ["agreement_rate", "review_load"]
    assert {kpi for kpi, row in verdicts.items() if row["p_value"] < 0.001} == bad
    assert {kpi for kpi, row in verdicts.items() if row["p_value"] > 0.1} == set(verdicts) - bad
    assert all(350 < row["canary_requests"] + row["stable_requests"] <= 400 for row in verdicts.values())
    assert now(CHURN, template) == [], "another product's log"
