"""The leakage gates on a made-up shop in a real lake: clean data passes, each kind of leak is named. No Spark."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from plumbline import clock, files, provenance
from plumbline.errors import GateFailed
from plumbline.lake import tables as lake
from plumbline.product import Product
from plumbline.settings import settings
from plumbline.state import ledger, objects, trainings
from plumbline.state.releases import ReleaseError
from plumbline.state.trainings import Place, place
from products.churn import CHURN
from tests.training.churn import made_up_shop as made
from training import audit, canonical, datasets, runs
from training.churn import dataset, leaky, snapshots, split
from training.errors import TrainingError
from validation import leakage

Change = Callable[[pd.DataFrame], pd.DataFrame]


@pytest.fixture
def shop(home: Path) -> ModuleType:
    """A release with its lake and its dataset, not judged yet."""
    orders = made.simulate_orders(700)
    days = split.choose(made.WEEKLY, made.AS_OF).days
    made.write_lake(orders, [*days, made.WEEKLY[-1]])
    made.publish(1)
    made.write_dataset(1, orders)
    return made


def rewrite(change: Change, *more: str, kind: pa.DataType | None = None) -> None:
    """Writes the dataset anew with changed rows, and with features `more`, as a buggy dataset stage would leave it."""
    data = datasets.load(Place(CHURN, 1))
    kinds = {name: data.rows.schema.field(name).type for name in data.features}
    kinds |= dict.fromkeys(more, kind or pa.float32())
    rows = canonical.table(change(data.rows.to_pandas()), dataset.schema(kinds), snapshots.KEY)
    objects.replace_bytes(Place(CHURN, 1).key(trainings.ROWS), canonical.to_parquet(rows))
    about = {**data.about, "content_hash": canonical.content_hash(rows, snapshots.KEY), "features": list(kinds)}
    files.write_whole(datasets.folder(Place(CHURN, 1)) / "dataset.json", files.dumps(about))


GATES = ("target_leakage", "temporal_leakage", "split_contamination")


def failing(match: str, *gates: str) -> GateFailed:
    """The check fails with these gates and no other, here and in the ledger; nothing is trained after it."""
    with pytest.raises(GateFailed, match=match) as told:
        leakage.check(Place(CHURN, 1))
    verdict = files.read_json(datasets.folder(Place(CHURN, 1)) / "leakage.json") or {}
    assert [name for name, gate in verdict["gates"].items() if gate["verdict"] == "failed"] == list(gates)
    event = [event for event in ledger.events("churn") if event["stage"] == "leakage_check"][-1]
    assert (event["state"], event["gates"]) == ("GATE_FAILED", verdict["gates"])
    with pytest.raises(GateFailed, match=f"{', '.join(gates)} failed on churn-r1-test: it is not trained on"):
        runs.train(Place(CHURN, 1))
    return told.value


def test_clean_data_passes_and_is_judged_once(shop: ModuleType, home: Path) -> None:
    first = leakage.check(place(CHURN))
    assert (first["state"], first["verdict"]) == ("done", "passed")
    assert {name: gate["verdict"] for name, gate in first["gates"].items()} == dict.fromkeys(GATES, "passed")
    evidence = files.read_json(home / "evidence" / "churn-training-1" / "leakage_check.json") or {}
    looked = {finding["what"] for finding in evidence["findings"]["temporal_leakage"]}
    assert {"label", "orders_90d: as stored", "orders_90d: as knowable", "days_since_last_order: as knowable"} <= looked
    assert leakage.check(Place(CHURN, 1))["state"] == "unchanged"
    assert audit.require_passed(Place(CHURN, 1))["content_hash"] == datasets.load(Place(CHURN, 1)).about["content_hash"]


def test_training_takes_no_dataset_that_was_not_looked_at_as_it_is(
    shop: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(TrainingError, match="run `plumb leakage_check --release 1` first"):
        runs.train(Place(CHURN, 1))
    leakage.check(Place(CHURN, 1))
    audit.require_passed(Place(CHURN, 1))
    with monkeypatch.context() as patch:
        patch.setattr(provenance, "code_sha", lambda: "other code")
        with pytest.raises(TrainingError, match="of this code have not looked at the dataset"):
            audit.require_passed(Place(CHURN, 1))
    rewrite(lambda rows: rows.assign(orders_total=rows["orders_total"] + 1))
    with pytest.raises(TrainingError, match="have not looked at the dataset of release 1 as it is"):
        runs.train(Place(CHURN, 1))


def test_without_a_dataset_it_says_which_command_makes_it(home: Path) -> None:
    made.write_lake(made.simulate_orders(5), made.WEEKLY[:1])
    made.publish(1)
    for twin, command in ((False, "plumb dataset --release 1`"), (True, "plumb dataset --release 1 --leaky`")):
        with pytest.raises(ReleaseError, match=command):
            leakage.check(Place(CHURN, 1, leaky=twin))


@pytest.mark.parametrize("share", [1.0, 0.1])
def test_a_reason_for_cancellation_is_named(shop: ModuleType, share: float) -> None:
    """Filled in for all who left, or for some: then it ranks badly, but whoever has one has left."""

    def with_reason(rows: pd.DataFrame) -> pd.DataFrame:
        known = rows["churned"] & (np.random.default_rng(1).random(len(rows)) < share)
        return rows.assign(reason_for_cancellation=np.where(known, rows["customer_id"] % 3, np.nan))

    rewrite(with_reason, "reason_for_cancellation")
    told = str(failing("reason_for_cancellation", "target_leakage"))
    assert ("reason_for_cancellation alone ranks churn with ROC-AUC 1.000, at most 0.9" in told) == (share == 1)
    assert "orders_total" not in told
    assert "Else mend the split, the service or the on-demand function, then `plumb dataset --release 1` again" in told
    assert "A stored feature is in the release: mend customers.sql, let the next daily run publish" in told


def test_a_reason_in_words_is_named_and_no_model_takes_words(shop: ModuleType) -> None:
    rewrite(
        lambda rows: rows.assign(reason_for_cancellation=np.where(rows["churned"], "moved away", None)),
        "reason_for_cancellation",
        kind=pa.string(),
    )
    told = str(failing("reason_for_cancellation", "target_leakage"))
    assert "reason_for_cancellation moved away: 100.0% of" in told


def test_a_relation_that_is_not_monotone_is_found_too(shop: ModuleType) -> None:
    """Churners sit at both ends of the range: the feature's own ROC-AUC is one half."""

    def at_both_ends(rows: pd.DataFrame) -> pd.DataFrame:
        random = np.random.default_rng(2)
        side = np.where(random.random(len(rows)) < 0.5, -1, 1)
        return rows.assign(
            wave=np.where(rows["churned"], side * (2 + random.random(len(rows))), random.random(len(rows)))
        )

    rewrite(at_both_ends, "wave")
    assert "wave alone ranks churn with ROC-AUC 1.000" in str(failing("wave", "target_leakage"))


def test_the_june_row_that_takes_decembers_value(shop: ModuleType) -> None:
    customer = _ordered_more(shop)

    def from_december(rows: pd.DataFrame) -> pd.DataFrame:
        mine = rows[rows["customer_id"] == customer].set_index("event_timestamp")["orders_total"]
        june, december = pd.Timestamp("1997-06-19", tz="UTC"), pd.Timestamp("1998-01-01", tz="UTC")
        assert mine[june] != mine[december]
        here = (rows["customer_id"] == customer) & (rows["event_timestamp"] == june)
        return rows.assign(orders_total=np.where(here, mine[december], rows["orders_total"]))

    rewrite(from_december)
    told = str(failing("orders_total", "temporal_leakage"))
    assert (
        "1 rows hold a value of orders_total that is not the one of their own moment in features.customers@v0" in told
    )
    assert f"(customer {customer} at 1997-06-19 has the value" in told
    assert "that the orders and returns known by then do not give: it was known only later" in told


def test_a_late_order_counts_from_when_it_was_known(shop: ModuleType) -> None:
    """An order dated before an observation and known after it: a dataset that has it has seen the future."""
    from deltalake import write_deltalake

    table = lake.open_table("analytics.orders").to_pyarrow_table().to_pandas()
    moment = clock.end_of(split.choose(shop.WEEKLY, shop.AS_OF).test)
    in_time = table[table["known_at"] < moment].sort_values("known_at").tail(3)
    table.loc[in_time.index, "known_at"] = pd.Timestamp(moment) + pd.Timedelta(days=2)
    kinds = lake.open_table("analytics.orders").to_pyarrow_table().schema
    write_deltalake(lake.uri("analytics.orders"), pa.Table.from_pandas(table, schema=kinds, preserve_index=False),
                    mode="overwrite")  # fmt: skip
    version = lake.version("analytics.orders")
    about = datasets.load(Place(CHURN, 1)).about | {"orders_version": f"delta:analytics.orders@v={version}"}
    files.write_whole(datasets.folder(Place(CHURN, 1)) / "dataset.json", files.dumps(about))
    told = str(failing("known only later", "temporal_leakage"))
    assert "customer " in told and "orders_total" in told


@pytest.mark.parametrize(("shift", "what"), [(-30, "overlaps the features"), (30, "another label than the orders")])
def test_a_label_window_in_the_wrong_place(shop: ModuleType, shift: int, what: str) -> None:
    from training.churn import labels

    table = lake.open_table("analytics.orders").to_pyarrow_table().to_pandas()
    ordered = pd.to_datetime(table["order_date"]).astype("datetime64[s]").astype("int64").to_numpy() // 86_400

    def shifted(rows: pd.DataFrame) -> pd.DataFrame:
        day = rows["request_time"].to_numpy() // 86_400 - 1 + shift
        return rows.assign(churned=labels.churned(table["customer_id"].to_numpy(), ordered, rows["customer_id"], day))

    rewrite(shifted)
    with pytest.raises(GateFailed, match=what):
        leakage.check(Place(CHURN, 1))


def test_labels_that_end_where_no_orders_are_known(shop: ModuleType) -> None:
    files.write_whole(
        datasets.folder(Place(CHURN, 1)) / "dataset.json",
        files.dumps(datasets.load(Place(CHURN, 1)).about | {"labels_until": "1998-06-01"}),
    )
    failing("a label window .* that ends behind 1998-06-01, where the orders end", "temporal_leakage")


def test_rows_asked_at_another_time(shop: ModuleType) -> None:
    rewrite(lambda rows: rows.assign(request_time=rows["request_time"] + 86_400))
    with pytest.raises(GateFailed, match="are asked at another time than they are observed"):
        leakage.check(Place(CHURN, 1))


def test_a_feature_with_another_definition_is_not_judged_by_the_plain_one(shop: ModuleType) -> None:
    """`orders_90d` in tens, in dataset and snapshots alike: a changed definition is no leak."""
    from deltalake import write_deltalake

    table = lake.open_table("features.customers").to_pyarrow_table()
    at = table.schema.get_field_index("orders_90d")
    tens = pa.array(table["orders_90d"].to_numpy() * 10 + 1, table.schema.field(at).type)
    write_deltalake(lake.uri("features.customers"), table.set_column(at, table.schema.field(at), tens),
                    mode="overwrite", partition_by=["snapshot_date"])  # fmt: skip
    rewrite(lambda rows: rows.assign(orders_90d=rows["orders_90d"] * 10 + 1))
    about = datasets.load(Place(CHURN, 1)).about | {
        "data_version": f"delta:features.customers@v={lake.version('features.customers')}"
    }
    files.write_whole(datasets.folder(Place(CHURN, 1)) / "dataset.json", files.dumps(about))
    assert leakage.check(Place(CHURN, 1))["verdict"] == "passed"
    evidence = (settings().home / "evidence" / "churn-training-1" / "leakage_check.json").read_text()
    assert "orders_90d has another definition than the plain one" in evidence


def test_a_random_split_is_contaminated(shop: ModuleType) -> None:
    def at_random(rows: pd.DataFrame) -> pd.DataFrame:
        return rows.assign(is_test=np.random.default_rng(4).random(len(rows)) < 0.1)

    rewrite(at_random)
    told = str(failing("label window of 90 days", "split_contamination"))
    assert "ends behind the customer's test observation" in told


def test_rows_copied_over_the_split_and_customers_on_both_sides(shop: ModuleType) -> None:
    def copied(rows: pd.DataFrame) -> pd.DataFrame:
        """Five test rows again, as training rows of an earlier day; another five an hour later, on the same day."""
        test = rows[rows["is_test"]]
        early = test.head(5).assign(is_test=False, event_timestamp=rows["event_timestamp"].min())
        rows = rows[
            ~(
                (rows["event_timestamp"] == rows["event_timestamp"].min())
                & rows["customer_id"].isin(early["customer_id"])
            )
        ]
        again = test.tail(5).assign(
            is_test=False, event_timestamp=test["event_timestamp"].max() + pd.Timedelta(hours=1)
        )
        return pd.concat([rows, early, again])

    rewrite(copied)
    with pytest.raises(GateFailed) as told:
        leakage.check(Place(CHURN, 1))
    assert "10 rows of the test have the same customer and features as a training row" in str(told.value)
    assert "5 rows train and test on one customer and day" in str(told.value)


def test_near_duplicates_of_other_customers_count_by_their_share(shop: ModuleType) -> None:
    def twins(rows: pd.DataFrame) -> pd.DataFrame:
        features = datasets.load(Place(CHURN, 1)).features
        test = rows[rows["is_test"]].head(100)
        taken = rows[~rows["is_test"]].index[: len(test)]
        rows.loc[taken, features] = test[features].to_numpy()
        return rows

    rewrite(twins)
    with pytest.raises(
        GateFailed, match="of the test rows have the same features as some training row, 5% is believed"
    ):
        leakage.check(Place(CHURN, 1))


def test_a_split_without_a_side(shop: ModuleType) -> None:
    rewrite(lambda rows: rows.assign(is_test=False))
    failing("there is nothing to test with", "split_contamination")


def test_the_leaky_twin_scores_better_and_is_rejected(
    shop: ModuleType, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from feature_repo import store as feature_store

    def on_demand(product: Product, rows: pd.DataFrame, service: str = "") -> pd.DataFrame:
        """The made-up shop counts days from the day after; what the service computes is the same."""
        asked = rows["event_time"].astype("datetime64[us, UTC]").astype("int64") // 86_400_000_000
        return rows.assign(days_since_last_order=asked - rows["last_order_day"])

    computed = feature_store.on_demand(
        CHURN, pd.DataFrame({"last_order_day": [10_000], "event_time": pd.to_datetime(["1998-04-02"], utc=True)})
    )
    assert computed["days_since_last_order"].tolist() == [10_318 - 10_000]
    monkeypatch.setattr(feature_store, "on_demand", on_demand)
    found = leaky.build(1)
    assert found["state"] == "done"
    honest, twin = found["scores"]["point_in_time"], found["scores"]["leaky_twin"]
    assert twin["roc_auc"] > 0.98 > honest["roc_auc"] + 0.05
    assert leaky.build(1)["state"] == "unchanged"
    with pytest.raises(GateFailed, match="target_leakage, temporal_leakage failed on churn-r1-test-leaky"):
        leakage.check(Place(CHURN, 1, leaky=True))
    judged = leakage.verdict(Place(CHURN, 1, leaky=True))
    assert judged["verdict"] == "failed"
    leaky.tell(found, judged)
    assert leakage.check(Place(CHURN, 1))["verdict"] == "passed", "the honest one is not touched"
    assert not (home / "mlflow").exists(), "the twin is nowhere registered"


def _ordered_more(shop: ModuleType) -> int:
    """A customer with an order between June and the end of the year, known before June."""
    rows = datasets.load(Place(CHURN, 1)).rows.to_pandas()
    total = rows.pivot(index="customer_id", columns="event_timestamp", values="orders_total")
    june, december = pd.Timestamp("1997-06-19", tz="UTC"), pd.Timestamp("1998-01-01", tz="UTC")
    more: Any = total[total[june] < total[december]].index
    return int(more[0])
