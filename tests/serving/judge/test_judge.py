"""Verdicts: determined by the log alone, blind to when it is read, to lateness, to drift, and to what came before."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from plumbline import metrics
from plumbline.lake.distributions import psi
from plumbline.settings import ROOT
from products.churn import CHURN
from serving.errors import ServingError
from serving.judge.verdicts import CELL, ENOUGH, HOLD, KEPT, SLOT, WINDOW, Answer, Judge, Levels, Outcome, Pair, levels

LEVELS, KPIS = Levels(alpha=0.05, effect=0.1), [kpi.name for kpi in CHURN.kpis]
START = 1_800_000_000.0
Samples = dict[str, dict[tuple[str, ...], float]]
Rate = Callable[[float], float]


def stream(
    requests: int = 4000,
    seconds: float = 600.0,
    share: Rate = lambda t: 0.2,
    rate: Rate = lambda t: 0.25,
    late: tuple[float, float] = (5.0, 5.0),
    worse: float = 1.0,
    canary: str = "new",
    stable: str = "old",
    seed: int = 1997,
    start: float = START,
) -> tuple[list[Answer], list[Outcome]]:
    """A canary's log. `share` and `rate` are of time; `late` is when an event and its absence are known; `worse`
    multiplies the canary's rate of calls."""
    rng = np.random.default_rng(seed)
    answers, outcomes = [], []
    for number in range(requests):
        at = number * seconds / requests
        is_canary = rng.random() < share(at)
        ordered = rng.random() < rate(at)
        called = rng.random() < rate(at) * (worse if is_canary else 1.0)
        name, side = f"{start:.0f}-{canary}-{number:06d}", ("canary", canary) if is_canary else ("stable", stable)
        answers.append(Answer(name, start + at, side[1], side[0], rng.beta(2, 5)))
        recorded = start + math.ceil((at + late[0 if called else 1]) / 5) * 5  # a commit every five seconds
        outcomes.append(Outcome(name, recorded, (ordered, called)))
    return answers, outcomes


def judged(*streams: tuple[list[Answer], list[Outcome]]) -> Samples:
    judge = Judge(LEVELS, CHURN.kpis)
    for answers, outcomes in streams:
        judge.read(answers, outcomes)
    return judge.samples()


def goes_on(seconds: float) -> tuple[list[Answer], list[Outcome]]:
    """A request so long after START, which the log has when it comes to that."""
    return [Answer(f"at {seconds}", START + seconds, "old", "stable", 0.5)], []


def pooled_z(answers: list[Answer], outcomes: list[Outcome], until: float, kpi: int) -> float:
    """What a repeated comparison of everything known at a time would look at: z of the canary's rate above stable's."""
    track = {row.request_id: row.track for row in answers}
    known = [(track[row.request_id], row.events[kpi]) for row in outcomes if row.recorded <= until]
    canary, stable = ([event for side, event in known if side == name] for name in ("canary", "stable"))
    rate = (sum(canary) + sum(stable)) / len(known)
    spread = math.sqrt(rate * (1 - rate) * (1 / len(canary) + 1 / len(stable)))
    return (sum(canary) / len(canary) - sum(stable) / len(stable)) / spread


def test_what_is_told_is_in_the_schema_with_its_labels() -> None:
    found, known = judged(stream()), {metric.name: metric for metric in metrics.JUDGE}
    assert set(found) == set(known)
    for name, samples in found.items():
        assert samples or name == "judge_failures_total"
        assert all(len(labels) == len(known[name].labels) for labels in samples)
    assert {labels[0] for labels in found["canary_kpi_p_value"]} == set(KPIS)
    assert set(found["canary_kpi_p_value"]) == {(kpi, "new", "old") for kpi in KPIS}
    assert set(found["canary_kpi_observations"]) == {(kpi, side) for kpi in KPIS for side in ("new", "old")}


def test_a_worse_canary_is_told_by_the_kpi_that_is_worse() -> None:
    p_values = judged(stream(worse=1.6))["canary_kpi_p_value"]
    assert (
        p_values["call_center_load", "new", "old"]
        < LEVELS.alpha / 2 / 100
        < 0.1
        < p_values["conversion_rate", "new", "old"]
    )
    assert judged(stream(worse=0.5))["canary_kpi_p_value"]["call_center_load", "new", "old"] == 1


@examples(max_examples=15, deadline=None)
@given(st.lists(st.floats(0, 660), max_size=8))
def test_when_the_log_is_read_changes_nothing(looks: list[float]) -> None:
    answers, outcomes = stream(requests=1500, late=(6.0, 40.0), worse=1.3)
    judge, before = Judge(LEVELS, CHURN.kpis), -math.inf
    for look in [*(START + at for at in sorted(looks)), math.inf]:
        judge.read(
            [row for row in answers if before < row.at + 5 <= look],  # written five seconds later
            [row for row in outcomes if before < row.recorded <= look],
        )
        before = look
    assert judge.samples() == judged((answers, outcomes))


def known_at_once(worse: float, share: float, seed: int) -> Judge:
    """What a judge that looks every two seconds makes of 40 requests a second whose outcomes are recorded a second
    later, while the rows of both sides reach the log in turn, those of 5 s at a time."""
    answers, outcomes = stream(8_000, 200.0, share=lambda t: share, worse=worse, seed=seed)
    outcomes = [row._replace(recorded=answer.at + 1) for row, answer in zip(outcomes, answers, strict=True)]

    def logged(row: Answer) -> float:
        behind = 2.5 if row.track == "canary" else 0.0
        return math.ceil((row.at - behind) / 5) * 5 + behind

    judge, before = Judge(LEVELS, CHURN.kpis), -math.inf
    for look in [START + second for second in range(2, 222, 2)]:
        judge.read(
            [row for row in answers if before < logged(row) <= look],
            [row for row in outcomes if before < row.recorded <= look],
        )
        before = look
    judge.read(*goes_on(230))
    assert judge.samples() == judged((answers, outcomes), goes_on(230)), "as if the log were read whole"
    return judge


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_outcomes_that_are_known_before_their_predictions_are_logged_are_compared_too(share: float) -> None:
    worse, good = ([known_at_once(worse, share, seed) for seed in range(6)] for worse in (1.6, 1.0))
    assert all(judge.p_values()["call_center_load", "new", "old"] < judge.level for judge in worse)
    assert sum(min(judge.p_values().values()) < judge.level for judge in good) <= 1, "one in twenty may"
    for judge in good:
        counts = judge.samples()["canary_kpi_observations"]
        assert sum(counts["conversion_rate", side] for side in ("new", "old")) > 0.95 * 8_000


def test_an_outcome_may_be_recorded_before_its_prediction_is_logged() -> None:
    answers, outcomes = stream(requests=2200, seconds=660)
    judge = Judge(LEVELS, CHURN.kpis)
    for minute in range(12):
        start = START + 60 * minute
        judge.read([], [row for row in outcomes if start <= row.recorded < start + 60])
        judge.read([row for row in answers if start <= row.at < start + 60], [])
    counts = judge.samples()["canary_kpi_observations"]
    assert counts["conversion_rate", "new"] + counts["conversion_rate", "old"] > 1900
    assert sum(map(len, judge._slots.values())) <= 2000 / 10


def test_outcomes_that_are_late_on_one_side_of_the_answer_do_not_bias() -> None:
    """Calls are known at once, their absence 100 s later; as its share grows, the canary's are the younger."""
    answers, outcomes = stream(requests=12_000, share=lambda t: min(0.05 + t / 1000, 0.6), late=(1.0, 100.0))
    assert pooled_z(answers, outcomes, START + 500, kpi=1) > 3, "else the log would bias nobody"
    found = judged((answers, outcomes))
    assert found["canary_kpi_p_value"]["call_center_load", "new", "old"] > 0.05
    lower = found["canary_kpi_difference_lower"]["call_center_load", "new", "old"]
    assert lower < 0 < found["canary_kpi_difference_upper"]["call_center_load", "new", "old"]


def test_a_rate_that_drifts_while_the_weights_grow_does_not_bias() -> None:
    answers, outcomes = stream(requests=12_000, share=lambda t: 0.1 if t < 300 else 0.5, rate=lambda t: 0.1 + t / 2000)
    assert pooled_z(answers, outcomes, math.inf, kpi=1) > 4
    assert judged((answers, outcomes))["canary_kpi_p_value"]["call_center_load", "new", "old"] > 0.05


def test_a_request_counts_once_and_only_when_it_is_known() -> None:
    answers, outcomes = stream(requests=500)
    later = stream(requests=1, start=START + 720)
    found = judged((answers, [*outcomes, *outcomes, Outcome("nobody's", START, (True, True))]), later, goes_on(900))
    counts = found["canary_kpi_observations"]
    assert counts["conversion_rate", "new"] + counts["conversion_rate", "old"] == 500
    assert judged((answers, outcomes), later, goes_on(900))["canary_kpi_rate"] == found["canary_kpi_rate"]


def test_a_cell_waits_for_its_outcomes_and_what_is_left_is_tested_later() -> None:
    judge = Judge(LEVELS, CHURN.kpis)

    def tested() -> float:
        counts = judge.samples()["canary_kpi_observations"]
        return sum(number for (kpi, _), number in counts.items() if kpi == "conversion_rate")

    answers, outcomes = stream(requests=CELL + 7, seconds=10)
    judge.read(answers, outcomes)
    assert tested() == 0
    end = (max(row.recorded for row in outcomes) // SLOT + 1) * SLOT - START
    judge.read(*goes_on(end + HOLD - 1))
    assert tested() < CELL, "rows of one side may be on their way"
    judge.read(*goes_on(end + HOLD))
    assert tested() == CELL
    judge.read(*stream(requests=1, start=START + 4 * WINDOW))
    judge.read(*goes_on(5 * WINDOW))
    assert tested() == CELL + 7


def test_without_a_canary_beside_stable_there_is_no_verdict() -> None:
    assert not any(judged(stream(share=lambda t: 0.0)).values())
    assert not any(judged(stream(share=lambda t: 1.0)).values())
    assert not any(judged(stream(canary="same", stable="same")).values())
    answers, outcomes = stream(share=lambda t: 1.0, start=START + 2 * WINDOW)
    assert not any(judged(stream(share=lambda t: 0.0, seconds=60), (answers, outcomes)).values())


def test_a_second_deploy_in_mid_canary_begins_with_no_evidence() -> None:
    first, second = stream(worse=2.0), stream(canary="newer", start=START + 600, seed=2)
    found = judged(first, second)["canary_kpi_p_value"]
    assert found["call_center_load", "new", "old"] < 0.001
    assert found["call_center_load", "newer", "old"] > 0.05
    alone = judged(second)["canary_kpi_p_value"]
    assert found["call_center_load", "newer", "old"] == alone["call_center_load", "newer", "old"]


def test_a_promoted_canary_is_the_next_ones_stable() -> None:
    found = judged(stream(), stream(canary="newer", stable="new", start=START + 660, seed=3))
    assert {labels[1:] for labels in found["canary_kpi_p_value"]} == {Pair("new", "old"), Pair("newer", "new")}
    assert found["canary_kpi_observations"]["conversion_rate", "new"] > 3000


def test_the_shift_of_scores_needs_scores_and_tells_one_model_from_another() -> None:
    def shift(requests: int, moved: float) -> float | None:
        answers, outcomes = stream(requests=requests, share=lambda t: 0.5)
        moving = [row._replace(score=row.score + moved * (row.track == "canary")) for row in answers]
        return judged((moving, outcomes))["canary_score_psi"].get(("new", "old"))

    assert shift(ENOUGH, 0.0) is None
    same, other = shift(4000, 0.0), shift(4000, 0.2)
    assert same is not None and same < 0.02 and other is not None and other > 0.5


def test_scores_that_many_customers_share_may_move_by_a_thousandth() -> None:
    answers, outcomes = stream(requests=4000, share=lambda t: 0.5)
    moved = [row._replace(score=0.731 if n % 3 else row.score) for n, row in enumerate(answers)]
    moved = [row._replace(score=row.score + 0.001 * (row.track == "canary")) for row in moved]
    shift = judged((moved, outcomes))["canary_score_psi"]["new", "old"]
    sides = [np.array([row.score for row in moved if row.track == track]) for track in ("stable", "canary")]
    assert shift < 0.05 < 0.25 < psi(*sides, bins=5)


def test_an_hour_without_the_canary_ends_it_and_nothing_piles_up() -> None:
    judge = Judge(LEVELS, CHURN.kpis)
    judge.read(*stream())
    pairs = set(judge.samples()["canary_score_psi"])
    for hour in range(1, 4):
        answers, outcomes = stream(share=lambda t: 0.0, start=START + hour * KEPT, seconds=KEPT)
        judge.read(answers, outcomes if hour > 2 else [])
    assert pairs == {("new", "old")} and not any(judge.samples().values())
    assert len(judge._windows) <= 4 and len(judge._waiting) < 300


def test_the_template_says_alpha_and_effect() -> None:
    found = levels(ROOT / "k8s/churn/base/kpis.yaml")
    assert (found.alpha, found.effect) == (0.05, 0.1)
    assert Judge(found, CHURN.kpis).level == 0.025


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "expected an AnalysisTemplate with spec.args, each with a name"),
        ("spec: {args: [", "expected an AnalysisTemplate, found no YAML"),
        ("spec: {args: [{name: alpha}, {name: effect, value: '0.1'}]}", "a number as the arg 'alpha', found None"),
        ("spec: {args: [{name: alpha, value: '0.05'}]}", "a number as the arg 'effect', found None"),
        ("spec: {args: [{name: alpha, value: '5'}, {name: effect, value: '0.1'}]}", "arg 'alpha' is 5.0, expected"),
        ("spec: {args: [{name: alpha, value: nan}, {name: effect, value: '0.1'}]}", "arg 'alpha' is nan, expected"),
    ],
)
def test_a_template_that_does_not_say_them_is_refused(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "template.yaml").write_text(text)
    with pytest.raises(ServingError, match=told):
        levels(tmp_path / "template.yaml")
    with pytest.raises(ServingError, match="No such file"):
        levels(tmp_path / "none.yaml")
