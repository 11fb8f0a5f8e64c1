from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from training import point_in_time
from training.churn import snapshots
from training.churn.snapshots import KEY
from training.errors import TrainingError

if TYPE_CHECKING:
    import pandas as pd


def stored() -> pd.DataFrame:
    import pandas as pd

    moments = pd.to_datetime(["1997-05-01", "1997-05-01", "1997-05-29"], utc=True).astype("datetime64[us, UTC]")
    return pd.DataFrame(
        {"event_timestamp": moments, "customer_id": [1, 2, 1], "orders_total": [1, 4, 2], "gap": [None, 2.5, 7.0]}
    )


def answer() -> pd.DataFrame:
    """As Feast's Spark store gives it: reordered, naive, float where it was int."""
    rows = snapshots.observations(stored()).assign(orders_total=[1.0, 4.0, 2.0], gap=[None, 2.5, 7.0])
    rows["event_timestamp"] = rows["event_timestamp"].dt.tz_localize(None)
    return rows.iloc[[2, 0, 1]]


def test_request_time_is_the_observation_in_epoch_seconds() -> None:
    assert snapshots.observations(stored())["request_time"].tolist() == [862444800, 862444800, 864864000]


def test_an_answer_is_sorted_and_made_aware() -> None:
    found = point_in_time.aligned(answer(), snapshots.observations(stored()), KEY)
    assert found["customer_id"].tolist() == [1, 2, 1]
    assert str(found["event_timestamp"].dtype) == "datetime64[us, UTC]"
    assert point_in_time.check_nothing_newer(found, stored(), KEY, "features.customers@v3") == ["orders_total", "gap"]


def test_dropped_repeated_and_swapped_rows_are_found() -> None:
    import pandas as pd

    asked = snapshots.observations(stored())
    with pytest.raises(TrainingError, match="Feast gave 2 rows for 3 observations"):
        point_in_time.aligned(answer().head(2), asked, KEY)
    with pytest.raises(TrainingError, match="Feast gave 4 rows for 3 observations"):
        point_in_time.aligned(pd.concat([answer(), answer().head(1)]), asked, KEY)
    with pytest.raises(TrainingError, match="changed the keys of 1 of 3 observations, the first near customer 2"):
        point_in_time.aligned(answer().replace({"customer_id": {2: 9}}), asked, KEY)


def test_a_feature_from_another_moment_is_found() -> None:
    leaked = answer()
    leaked.loc[1, "orders_total"] = 5
    found = point_in_time.aligned(leaked, snapshots.observations(stored()), KEY)
    with pytest.raises(TrainingError, match=r"orders_total of customer 2 .* Feast gave 5.0, .*@v3 says 4 .*leaked in"):
        point_in_time.check_nothing_newer(found, stored(), KEY, "features.customers@v3")
    missing = answer()
    missing.loc[2, "gap"] = None
    found = point_in_time.aligned(missing, snapshots.observations(stored()), KEY)
    with pytest.raises(TrainingError, match="gap of customer 1"):
        point_in_time.check_nothing_newer(found, stored(), KEY, "features.customers@v3")
