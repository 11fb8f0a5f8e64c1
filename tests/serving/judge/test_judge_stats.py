"""The sequential test: a martingale under the null, whatever the cells, and dual to its confidence sequence."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from scipy import stats

from serving.judge.stats import FARTHEST, Harm, SequentialTest

LEVEL, EFFECT = 0.025, 0.1
HARMS: list[Harm] = [-1, 1]
harms = st.sampled_from(HARMS)
sizes = st.integers(0, 40)


@st.composite
def cells(draw: st.DrawFn) -> tuple[int, int, int, int]:
    canary, stable = draw(sizes), draw(sizes)
    return canary, stable, draw(st.integers(0, canary)), draw(st.integers(0, stable))


def a_test(harm: Harm, given: list[tuple[int, int, int, int]] | None = None) -> SequentialTest:
    test = SequentialTest(LEVEL, EFFECT, harm)
    for cell in given or []:
        test.add(*cell)
    return test


def bayes_factor(test: SequentialTest) -> float:
    return math.exp(test.log_bayes_factor())


def expected(harm: Harm, before: list[tuple[int, int, int, int]], margins: tuple[int, int, int], odds: float) -> float:
    """The Bayes factor's expectation after one more cell of these margins (canary, stable, events), by its law."""
    canary, stable, events = margins
    law = stats.nchypergeom_fisher(canary + stable, events, canary, odds)
    total = 0.0
    for x in range(max(0, events - stable), min(canary, events) + 1):
        total += law.pmf(x) * bayes_factor(a_test(harm, [*before, (canary, stable, x, events - x)]))
    return total


@st.composite
def margins(draw: st.DrawFn) -> tuple[int, int, int]:
    canary, stable = draw(st.integers(1, 25)), draw(st.integers(1, 25))
    return canary, stable, draw(st.integers(0, canary + stable))


@examples(max_examples=40, deadline=None)
@given(harms, st.lists(cells(), max_size=3), margins())
def test_under_the_null_the_next_cell_changes_the_expectation_by_nothing(
    harm: Harm, before: list[tuple[int, int, int, int]], margins: tuple[int, int, int]
) -> None:
    assert expected(harm, before, margins, 1.0) == pytest.approx(bayes_factor(a_test(harm, before)), rel=1e-6)


@examples(max_examples=30, deadline=None)
@given(harms, margins(), st.floats(0.05, 1.5))
def test_a_better_canary_is_refused_no_oftener_and_a_worse_one_oftener(
    harm: Harm, margins: tuple[int, int, int], log_odds: float
) -> None:
    assert expected(harm, [], margins, math.exp(-harm * log_odds)) <= 1 + 1e-9
    assert expected(harm, [], margins, math.exp(harm * log_odds)) >= 1 - 1e-9


@examples(max_examples=50, deadline=None)
@given(harms, st.lists(cells(), max_size=6), st.randoms())
def test_the_order_of_cells_does_not_matter_and_the_p_value_only_falls(
    harm: Harm, given: list[tuple[int, int, int, int]], random: object
) -> None:
    test, p_values = a_test(harm), [1.0]
    for cell in given:
        test.add(*cell)
        p_values.append(test.p_value)
    assert p_values == sorted(p_values, reverse=True) and p_values[-1] > 0
    shuffled = list(given)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert a_test(harm, shuffled).log_bayes_factor() == pytest.approx(test.log_bayes_factor(), abs=1e-6)


@examples(max_examples=50, deadline=None)
@given(st.lists(cells(), max_size=4))
def test_fewer_orders_are_as_bad_as_more_of_their_absence(given: list[tuple[int, int, int, int]]) -> None:
    absent = [(canary, stable, canary - c, stable - s) for canary, stable, c, s in given]
    assert a_test(-1, given).p_value == pytest.approx(a_test(1, absent).p_value, rel=1e-6)


@examples(max_examples=50, deadline=None)
@given(harms, st.lists(cells(), min_size=1, max_size=6))
@example(-1, [(0, 0, 0, 0)])
@example(1, [(0, 0, 0, 0)])
def test_zero_is_left_out_exactly_when_the_null_is_refused(harm: Harm, given: list[tuple[int, int, int, int]]) -> None:
    test = a_test(harm, given)
    found = test.difference()
    if found is None:
        assert bayes_factor(test) == 1
        return
    assert found.lower <= found.estimate <= found.upper
    worse_than_nothing = found.upper < 0 if harm < 0 else found.lower > 0
    assert worse_than_nothing == (bayes_factor(test) > 1 / LEVEL)


@pytest.mark.parametrize("cell", [(0, 50, 0, 9), (50, 0, 9, 0), (10, 40, 0, 0), (10, 40, 10, 40)])
def test_margins_that_leave_nothing_to_chance_say_nothing(cell: tuple[int, int, int, int]) -> None:
    test = a_test(1, [cell])
    assert (test.p_value, test.difference()) == (1.0, None)
    assert test.canary + test.stable == 50


def test_with_rare_events_it_is_the_conditional_binomial_of_the_paper() -> None:
    canary, stable, mine, others = 20_000, 60_000, 9, 12
    test = a_test(1, [(canary, stable, mine, others)])
    share, steps = canary / (canary + stable), np.arange(1, test.reach + 1)
    odds = np.exp(steps * test.step)
    ratios = odds**mine / (1 - share + share * odds) ** (mine + others)
    weights = 1 / (1 + (steps / 4) ** 2)
    assert bayes_factor(test) == pytest.approx(float(ratios @ weights / weights.sum()), rel=0.01)


def test_the_difference_is_the_observed_one_when_much_was_observed() -> None:
    found = a_test(-1, [(100, 100, 20, 30)] * 100).difference()
    assert found is not None
    assert found.estimate == pytest.approx(-0.1, abs=0.003)
    assert -0.13 < found.lower < -0.11 < -0.09 < found.upper < -0.07


def test_effects_beyond_the_grid_are_found_too() -> None:
    test = a_test(1, [(20, 30, 20, 0)] * 3)
    found = test.difference()
    assert test.p_value < 1e-6 and found is not None and found.lower > 0.3
    assert found.estimate == found.upper, "all events are the canary's: the likelihood has no maximum"
    rate, farthest = 0.5 / 91, test.reach * test.step
    assert found.upper == pytest.approx(1 / (1 + (1 - rate) / rate * math.exp(-farthest)) - rate)
    assert FARTHEST <= farthest < FARTHEST + test.step


def test_looking_after_every_cell_of_a_ramp_refuses_no_more_than_its_level() -> None:
    rng, refused, runs = np.random.default_rng(1997), 0, 400
    for _ in range(runs):
        test = SequentialTest(0.1, EFFECT, 1)
        for share in np.repeat([0.1, 0.25, 0.5], 60):
            rate = rng.uniform(0.05, 0.4)
            canary = int(rng.binomial(50, share))
            test.add(canary, 50 - canary, int(rng.binomial(canary, rate)), int(rng.binomial(50 - canary, rate)))
        refused += test.p_value <= test.level
    assert 0 < refused <= stats.binom(runs, 0.1).ppf(0.99)


@pytest.mark.parametrize(("worse", "cells"), [(0.5, 150), (0.2, 700)])
def test_a_worse_canary_is_found_at_a_tenth_of_the_traffic(worse: float, cells: int) -> None:
    rng = np.random.default_rng(1998)
    for _ in range(20):
        test = SequentialTest(LEVEL, EFFECT, -1)
        for _ in range(cells):
            canary = int(rng.binomial(50, 0.1))
            events = int(rng.binomial(canary, 0.25 * (1 - worse))), int(rng.binomial(50 - canary, 0.25))
            test.add(canary, 50 - canary, *events)
        assert test.p_value <= LEVEL
