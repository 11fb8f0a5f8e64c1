"""Features as they were knowable at each observation, from Feast at a release.

Feast does the join. What comes back is held against what went in: the same keys, no row more or fewer, and for
every observation the values of the very snapshot that was taken at its moment, none from later.
"""

from __future__ import annotations

import warnings
from collections.abc import Container
from typing import TYPE_CHECKING, Any

from training.canonical import Key
from training.errors import TrainingError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    from feast import FeatureStore
    from numpy.typing import NDArray
    from pyspark.sql import DataFrame


def model_inputs(store: FeatureStore, service: str, bookkeeping: Container[str] = ()) -> dict[str, pa.DataType]:
    """The features of a FeatureService that a model may see, with their Arrow types, in the service's order.

    `bookkeeping` is what the service carries beside them.
    """
    from feast.types import from_feast_to_pyarrow_type

    projections = store.get_feature_service(service).feature_view_projections
    fields = [field for projection in projections for field in projection.features]
    return {field.name: from_feast_to_pyarrow_type(field.dtype) for field in fields if field.name not in bookkeeping}


def historical(store: FeatureStore, service: str, table: str, version: int, asked: DataFrame) -> pd.DataFrame:
    """Feast's answer for each row of `asked`, a Spark frame, in whatever order: see `aligned`.

    Raises TrainingError when Feast's query does not read the table at `version`.
    """
    # At import Feast puts a filter of its own in front of ours, so it is imported before ours is set.
    import feast.infra.offline_stores.contrib.spark_offline_store.spark  # noqa: F401

    with warnings.catch_warnings():
        # Feast calls its Spark store experimental at each use; `aligned` and `check_nothing_newer` are our answer.
        warnings.simplefilter("ignore")
        job = store.get_historical_features(asked, store.get_feature_service(service))
        if f"VERSION AS OF {version}" not in job.query:
            raise TrainingError(f"Feast would read {table} unpinned; expected version {version} in its query")
        found: pd.DataFrame = job.to_df()
    return found


def aligned(found: pd.DataFrame, wanted: pd.DataFrame, key: Key) -> pd.DataFrame:
    """Feast's answer in the order of `key`, for the question `wanted`: the key and what else was asked with.

    Raises TrainingError when the answer's keys, or what was asked with, differ from the question's.
    """
    import pandas as pd

    moments = pd.to_datetime(found["event_timestamp"], utc=True).astype("datetime64[us, UTC]")
    answer = found.assign(event_timestamp=moments).sort_values(list(key), kind="stable").reset_index(drop=True)
    question = wanted.sort_values(list(key), kind="stable").reset_index(drop=True)
    # The lengths come first: what is compared by position below must have the same positions.
    if len(answer) != len(question):
        raise TrainingError(
            f"Feast gave {len(answer):,} rows for {len(question):,} observations: rows were dropped or repeated, "
            "no dataset is made of that"
        )
    asked = list(question.columns)
    different = (answer[asked].astype(question.dtypes.to_dict()) != question).any(axis=1)
    if different.any():
        first = question.iloc[int(different.to_numpy().argmax())]
        raise TrainingError(
            f"Feast changed the keys of {int(different.sum()):,} of {len(question):,} observations, the first near "
            f"{named(key, first[key[1]])} at {first['event_timestamp']}"
        )
    return answer


def check_nothing_newer(answer: pd.DataFrame, stored: pd.DataFrame, key: Key, pinned: str) -> list[str]:
    """Proves that each observation got its own moment's snapshot: every stored feature in the answer must be equal.

    A row from a later (or an earlier) snapshot would differ. Both frames are sorted by `key`; `pinned` names table and
    version of the stored one. Gives the names compared; raises TrainingError with the first difference.
    """
    shared = [name for name in stored.columns if name in answer.columns and name not in {*key, "release_id"}]
    for name in shared:
        different = ~_same(answer[name], stored[name])
        if different.any():
            at = int(different.argmax())
            whose, moment = named(key, stored[key[1]].iloc[at]), stored["event_timestamp"].iloc[at]
            raise TrainingError(
                f"{name} of {whose} observed at {moment}: Feast gave {answer[name].iloc[at]}, "
                f"the snapshot in {pinned} says {stored[name].iloc[at]} "
                f"({int(different.sum()):,} such rows): a feature from another moment leaked in"
            )
    return shared


def named(key: Key, value: object) -> str:
    """An entity as messages name it, as in `customer 7`."""
    return f"{key[1].removesuffix('_id')} {value}"


def _same(left: pd.Series, right: pd.Series) -> NDArray[Any]:
    import numpy as np
    import pandas as pd

    if not (pd.api.types.is_numeric_dtype(left) and pd.api.types.is_numeric_dtype(right)):
        texts: NDArray[Any] = (left.astype(object).to_numpy() == right.astype(object).to_numpy()) | (
            left.isna().to_numpy() & right.isna().to_numpy()
        )
        return texts
    a, b = left.to_numpy(dtype=np.float64, na_value=np.nan), right.to_numpy(dtype=np.float64, na_value=np.nan)
    same: NDArray[Any] = (a == b) | (np.isnan(a) & np.isnan(b))
    return same
