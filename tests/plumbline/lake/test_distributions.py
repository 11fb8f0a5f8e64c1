from __future__ import annotations

import numpy as np
import pytest

from plumbline.lake import distributions


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def test_the_same_distribution_has_a_small_psi_and_a_moved_one_a_large_one(rng: np.random.Generator) -> None:
    reference = rng.normal(size=20_000)
    assert distributions.psi(reference, rng.normal(size=20_000)) < 0.01
    assert distributions.psi(reference, rng.normal(0.5, size=20_000)) > 0.2
    assert distributions.psi(reference, reference) == 0.0


def test_psi_is_the_sum_that_its_definition_says() -> None:
    reference = np.repeat([0.0, 1.0], [80, 20])
    current = np.repeat([0.0, 1.0], [50, 50])
    expected = (0.5 - 0.8) * np.log(0.5 / 0.8) + (0.5 - 0.2) * np.log(0.5 / 0.2)
    assert distributions.psi(reference, current) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("reference", "current"),
    [
        (np.zeros(100), np.ones(100)),  # a value that every row shared is gone
        (np.zeros(100), np.full(100, np.nan)),  # every value went missing
        (np.full(100, np.nan), np.zeros(100)),  # a column that was empty is filled
        (np.repeat([0, 1, 2], 50), np.repeat([0, 0, 2], 50)),  # a spike of whole numbers moved
    ],
)
def test_a_moved_mass_is_seen(reference: np.ndarray, current: np.ndarray) -> None:
    assert distributions.psi(reference, current) > distributions.LARGE


def test_nothing_to_compare_is_an_error() -> None:
    with pytest.raises(ValueError, match="0 reference values, 1 current"):
        distributions.psi(np.empty(0), np.zeros(1))


def test_describe_counts_the_missing_and_leaves_unknown_what_it_cannot_know() -> None:
    about = distributions.describe(np.array([4.0, 2.0, np.nan, 2.0]))
    assert (about["rows"], about["missing"], about["distinct"]) == (4, 0.25, 2)
    assert (about["min"], about["median"], about["max"]) == (2.0, 2.0, 4.0)
    empty = distributions.describe(np.array([np.nan]))
    assert empty["missing"] == 1.0 and empty["mean"] is None
    assert distributions.describe(np.empty(0))["missing"] is None
