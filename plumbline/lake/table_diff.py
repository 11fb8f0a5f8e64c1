"""Two versions of one table held against each other: rows by key, columns, and how each column's values moved."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from plumbline.lake.distributions import describe, psi

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

BINS = 20


def compare(
    before: pd.DataFrame,
    after: pd.DataFrame,
    key: list[str],
    types: tuple[dict[str, str], dict[str, str]],
    ignored: tuple[str, ...] = (),
) -> dict[str, Any]:
    """What differs between two frames with one row a key; `types` are their columns' SQL types.

    Gives `rows` (before, after, added, removed, changed), `columns` (added, removed, retyped) and for each column
    `changed` (share of the rows on both sides, None for a new one), `psi`, and `before` and `after` as `describe` does.
    Ignored columns say who wrote a row, not what is in it. Raises ValueError when a key comes twice.
    """
    import numpy as np

    for name, frame in (("before", before), ("after", after)):
        if frame.duplicated(key).any():
            raise ValueError(f"{int(frame.duplicated(key).sum()):,} rows {name} repeat a key ({', '.join(key)})")
    old, new = before.set_index(key).sort_index(), after.set_index(key).sort_index()
    both = old.index.intersection(new.index)
    shared = [name for name in old.columns if name in new.columns and name not in ignored]
    left, right = old.loc[both], new.loc[both]
    unlike = {name: differs(left[name], right[name]) for name in shared}
    changed = np.logical_or.reduce(list(unlike.values())) if shared else np.zeros(len(both), bool)
    added = [name for name in new.columns if name not in old.columns]
    return {
        "rows": {
            "before": len(old),
            "after": len(new),
            "added": len(new) - len(both),
            "removed": len(old) - len(both),
            "changed": int(changed.sum()),
        },
        "columns": {
            "added": {name: types[1][name] for name in added},
            "removed": {name: types[0][name] for name in old.columns if name not in new.columns},
            "retyped": {n: [types[0][n], types[1][n]] for n in shared if types[0][n] != types[1][n]},
        },
        "each": {
            name: {
                "type": types[1][name],
                "changed": float(unlike[name].mean()) if name in unlike and len(both) else None,
                **_moved(old[name] if name in old.columns else None, new[name]),
            }
            for name in [*shared, *added]
        },
    }


def numbers(column: pd.Series) -> NDArray[Any] | None:
    """A column as float64 with NaN for missing: numbers as they are, dates as days; None for text and the like."""
    import numpy as np
    import pandas as pd

    if pd.api.types.is_numeric_dtype(column):
        return column.to_numpy(dtype="float64", na_value=np.nan)
    if not pd.api.types.is_datetime64_any_dtype(column):
        return None
    days = pd.to_datetime(column, utc=True).astype("datetime64[us, UTC]").astype("int64").to_numpy() / 86_400_000_000
    return np.where(column.isna().to_numpy(), np.nan, days)


def _moved(before: pd.Series | None, after: pd.Series) -> dict[str, Any]:
    then, now = (numbers(column) if column is not None else None for column in (before, after))
    if now is None:
        return {
            "psi": None,
            "before": None if before is None else _of_text(before),
            "after": _of_text(after),
            "histogram": None,
        }
    return {
        "psi": psi(then, now) if then is not None and len(then) and len(now) else None,
        "before": describe(then) if then is not None else None,
        "after": describe(now),
        "histogram": _histogram(then, now),
    }


def _of_text(column: pd.Series) -> dict[str, Any]:
    return {"rows": len(column), "missing": float(column.isna().mean()), "distinct": int(column.nunique())}


def _histogram(before: NDArray[Any] | None, after: NDArray[Any]) -> dict[str, list[float]] | None:
    """Shares before and after in the same bins, between the 1st and 99th percentile of both together."""
    import numpy as np

    held = [values[np.isfinite(values)] for values in (before, after) if values is not None]
    together = np.concatenate(held)
    if not len(together):
        return None
    low, high = np.quantile(together, [0.01, 0.99])
    edges = np.linspace(low, high if high > low else low + 1, BINS + 1)
    shares = [np.histogram(np.clip(v, edges[0], edges[-1]), edges)[0] / max(len(v), 1) for v in held]
    return {
        "edges": edges.tolist(),
        "before": shares[0].tolist() if len(held) == 2 else [],
        "after": shares[-1].tolist(),
    }


def differs(left: pd.Series, right: pd.Series) -> NDArray[Any]:
    """Which rows hold another value (missing equals missing): an array of booleans."""
    import numpy as np

    then, now = numbers(left), numbers(right)
    if then is not None and now is not None:
        same: NDArray[Any] = (then == now) | (np.isnan(then) & np.isnan(now))
    else:
        missing = left.isna().to_numpy() & right.isna().to_numpy()
        same = (left.astype(str).to_numpy() == right.astype(str).to_numpy()) | missing
    found: NDArray[Any] = ~same
    return found
