"""How far a column moved from what it was: pure functions on arrays of numbers, NaN for missing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray


def missing(values: NDArray[Any]) -> float:
    """Share of the values that is missing; 0 of none."""
    import numpy as np

    return float(np.isnan(values.astype(np.float64)).mean()) if len(values) else 0.0


def distance(reference: NDArray[Any], current: NDArray[Any]) -> float:
    """Kolmogorov and Smirnov's statistic: the largest distance between two distribution functions, 0 to 1.

    Missing values are left out. Raises ValueError when either side has none.
    """
    import numpy as np

    was, now = (np.sort(values[np.isfinite(values)]) for values in (reference, current))
    if not len(was) or not len(now):
        raise ValueError(f"nothing to compare: {len(was)} reference values, {len(now)} current ones")
    at = np.concatenate([was, now])
    below = [np.searchsorted(values, at, side="right") / len(values) for values in (was, now)]
    return float(np.abs(below[0] - below[1]).max())
