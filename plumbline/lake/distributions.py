"""How a column is distributed, and how far it moved: pure functions on arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NOTABLE, LARGE = 0.1, 0.25
"""Usual reading of a PSI: below 0.1 stable, above 0.25 another population (Siddiqi, Credit Risk Scorecards, 2006)."""

FLOOR = 1e-4
"""An empty bin counts as this share, so that one customer in a bin that was empty is not an infinite shift."""


def psi(
    reference: NDArray[Any], current: NDArray[Any], bins: int = 10, ends: NDArray[np.float64] | None = None
) -> float:
    """Population stability index of `current` against `reference`, both one column of numbers; 0 is no shift.

    Bins end at the reference's quantiles, so that a value which many rows share (zero orders) has a bin of its own;
    what lies above all of them is one more bin, and missing values (NaN) are another. With `ends` they end there.

    Raises ValueError when either is empty.
    """
    import numpy as np

    if not len(reference) or not len(current):
        raise ValueError(f"nothing to compare: {len(reference)} reference values, {len(current)} current ones")
    held = _finite(reference)
    if ends is None:
        ends = np.unique(np.quantile(held, np.linspace(0, 1, bins + 1))) if len(held) else np.empty(0)
    was, now = (np.maximum(_shares(values, ends), FLOOR) for values in (reference, current))
    return float(np.sum((now - was) * np.log(now / was)))


def describe(values: NDArray[Any]) -> dict[str, float | int | None]:
    """rows, missing (share), distinct, mean, min, p05, median, p95, max of a column of numbers (NaN is missing).

    What cannot be known without a value is None.
    """
    import numpy as np

    held = _finite(values)
    about: dict[str, float | int | None] = {
        "rows": len(values),
        "missing": 1 - len(held) / len(values) if len(values) else None,
        "distinct": len(np.unique(held)),
    }
    names = ("mean", "min", "p05", "median", "p95", "max")
    if not len(held):
        return {**about, **dict.fromkeys(names)}
    numbers = (held.mean(), *np.quantile(held, [0, 0.05, 0.5, 0.95, 1]))
    return {**about, **{name: float(number) for name, number in zip(names, numbers, strict=True)}}


def _finite(values: NDArray[Any]) -> NDArray[Any]:
    import numpy as np

    numbers = values.astype(np.float64)
    held: NDArray[Any] = numbers[np.isfinite(numbers)]
    return held


def _shares(values: NDArray[Any], ends: NDArray[Any]) -> NDArray[Any]:
    """Share of the values in each bin: up to each end, above the last, missing."""
    import numpy as np

    held = _finite(values)
    counts = np.bincount(np.searchsorted(ends, held, side="left"), minlength=len(ends) + 1)
    shares: NDArray[Any] = np.append(counts, len(values) - len(held)) / len(values)
    return shares
