"""The study of the guardrails: it runs, what is committed is what it found, and the promise holds in it."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import yaml

from bench import guardrails, rollouts
from bench.rollouts import KPIS, LONGEST, NEVER, PER_SECOND, RAMP, Scenario, step_seconds
from plumbline import files
from plumbline.settings import ROOT

COMMITTED: dict[str, Any] = files.read_json(guardrails.JSON) or {}
population = cache(rollouts.population)


def rollout(scenario: Scenario, seed: int = 1) -> rollouts.Run:
    return rollouts.run(population(), scenario, np.random.default_rng(seed))


def test_what_is_committed_is_what_the_numbers_and_the_template_give() -> None:
    assert guardrails.PAGE.read_text() == guardrails.text(COMMITTED), "python -m bench.guardrails --page"


def test_the_numbers_are_of_the_shipped_args() -> None:
    assert {part: COMMITTED[part]["args"] for part in guardrails.PARTS} == dict.fromkeys(
        guardrails.PARTS, guardrails.measured_at()
    ), "make study"


@pytest.mark.parametrize("part", guardrails.AS_GOOD)
def test_a_canary_as_good_as_stable_is_aborted_with_probability_alpha_at_most(part: str) -> None:
    found, alpha = COMMITTED[part], float(rollouts.args()["alpha"])
    assert found["runs"] >= 1000
    assert found["judge"]["aborted"] <= found["judge"]["at_most"] <= alpha
    assert min(found[method]["aborted"] for method in ("threshold", "z")) > alpha, "else nothing would be gained"


@pytest.mark.parametrize(("kpi", "steps"), [("conversion_rate", 1), ("call_center_load", 2)])
def test_larger_effects_are_found_sooner_and_the_largest_where_the_page_says(kpi: str, steps: int) -> None:
    rows = [row["judge"] for row in COMMITTED[kpi]["effects"]]
    until = [row["requests"] or NEVER for row in rows]
    assert until == sorted(until, reverse=True)
    assert (steps - 1) * step_seconds() * PER_SECOND < until[-1] < steps * step_seconds() * PER_SECOND
    assert rows[-1]["in_ramp"] == 1


def test_the_ramp_is_the_rollouts() -> None:
    rollout = ROOT / "k8s/churn/base/rollout.yaml"
    if not rollout.exists():
        pytest.skip("no Rollout in this tree")
    steps = yaml.safe_load(rollout.read_text())["spec"]["strategy"]["canary"]["steps"]
    weights = [step["setWeight"] for step in steps if "setWeight" in step]
    assert [weight / 100 for weight in weights if weight < 100] == list(RAMP)


def test_the_population_is_real_in_its_orders() -> None:
    people = population()
    assert people.shape == (23_570, len(KPIS))
    assert people.mean(axis=0) == pytest.approx([0.215, 0.077], abs=0.001)


def test_a_rollout_follows_the_ramp_and_ends() -> None:
    looks = list(rollouts._stream(population(), Scenario(), np.random.default_rng(3)))
    per_step = len(looks) // len(RAMP)
    shares = [
        sum(canary for *_, canary in looks[per_step * step : per_step * (step + 1)])
        / sum(len(answers) for _, answers, *_ in looks[per_step * step : per_step * (step + 1)])
        for step in range(len(RAMP))
    ]
    assert shares == pytest.approx(RAMP, abs=0.02)
    assert looks[-1][0] == step_seconds() * len(RAMP)
    asked = {row.request_id: row.at for _, answers, *_ in looks for row in answers}
    known = [row for *_, outcomes, _ in looks for row in outcomes]
    assert len({row.request_id for row in known}) == len(known) > 0.98 * len(asked)
    assert all(0 <= row.recorded - asked[row.request_id] <= 20 for row in known)


def test_a_canary_that_is_half_as_good_is_aborted_in_the_first_step_for_that_kpi() -> None:
    found = rollout(Scenario(factor=(0.5, 1.0), kpi="conversion_rate"))
    assert found.requests["judge", "conversion_rate"] < step_seconds() * PER_SECOND
    assert found.requests["judge", "call_center_load"] == NEVER
    assert found.exposed["judge", "conversion_rate"] < found.requests["judge", "conversion_rate"] / 5


def test_a_canary_that_is_better_is_kept_for_as_long_as_it_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollouts, "LONGEST", LONGEST // 10)
    found = rollout(Scenario(factor=(1.3, 0.7), kpi="conversion_rate"))
    assert found.first("judge") == NEVER
