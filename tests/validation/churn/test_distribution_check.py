"""The stage over real orders in Delta tables: clean days pass, each fault stops the line, what is real is accepted."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from datetime import date, datetime, time, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from deltalake import write_deltalake

from plumbline.errors import Conflict, GateFailed
from plumbline.lake import tables as lake
from plumbline.pipeline import publish, stage
from plumbline.pipeline.stage import StageRun
from plumbline.settings import ROOT, settings
from plumbline.state import acceptances, candidates, ledger, releases
from plumbline.state.acceptances import AcceptanceError, accept
from plumbline.verdict import Verdict
from products.churn import CHURN
from tests.conftest import use_home
from tests.validation.churn import real_shop
from validation.churn import distribution_check, thresholds
from validation.churn.distribution_check import FEATURES, GATES, ORDERS

DAY = date(1998, 6, 24)
BASE = DAY - timedelta(days=1)
Change = Callable[[pd.DataFrame], pd.DataFrame]


def same(frame: pd.DataFrame) -> pd.DataFrame:
    return frame


def write_orders(orders: pd.DataFrame) -> int:
    noon = [datetime.combine(day, time(12)) for day in orders["known_on"]]
    columns = {name: pa.array(orders[name], pa.int64(), from_pandas=True) for name in ("order_id", "customer_id")}
    columns |= {name: pa.array(orders[name], pa.int64(), from_pandas=True) for name in ("units", "total_cents")}
    columns["order_date"] = pa.array(orders["order_date"], pa.date32())
    columns["known_at"] = pa.array(noon, pa.timestamp("us")).cast(pa.timestamp("us", "UTC"))
    write_deltalake(lake.uri(ORDERS), pa.table(columns), mode="overwrite")
    return lake.version(ORDERS) or 0


def write_features(days: list[date], change: Change = same) -> int:
    frames = [real_shop.snapshot(day).assign(snapshot_date=day) for day in days]
    rows = pd.concat([*frames[:-1], change(frames[-1])], ignore_index=True)
    write_deltalake(lake.uri(FEATURES), pa.Table.from_pandas(rows, preserve_index=False), mode="overwrite")
    return lake.version(FEATURES) or 0


def run_to_the_gate(day: date, days: list[date], orders: Change = same, features: Change = same) -> None:
    """The stages before the gate, as far as it can tell: a batch, orders, snapshots of these days, the newest last."""
    known = real_shop.orders(day)
    base = releases.in_force(CHURN.name)
    new = known["known_on"] > (base.as_of if base else date.min)
    known = pd.concat([known[~new], orders(known[new])], ignore_index=True)

    def ingest(run: StageRun) -> str:
        run.facts["batch_id"] = f"batch {len(run.candidate.rejected) + 1}"
        return "landed"

    def dbt_run(run: StageRun) -> str:
        run.write(ORDERS, write_orders(known), len(known))
        return "built"

    def ge_check(run: StageRun) -> str:
        run.gates["orders_expectations"] = Verdict("orders_expectations", passed=True)
        return "held"

    def compute(run: StageRun) -> str:
        run.write(FEATURES, write_features(days, features), len(days))
        return "computed"

    for work in (ingest, dbt_run, ge_check):
        stage.perform(CHURN, work.__name__, day, work)
    stage.perform(CHURN, "features", day, compute)
    stage.perform(CHURN, "activity", day, lambda run: "no stream")


def check(day: date) -> stage.Result:
    return stage.perform(CHURN, "distribution_check", day, distribution_check.check)


def release(day: date) -> releases.Release:
    stage.perform(CHURN, "release", day, publish.publish)
    return releases.required(CHURN.name)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home with release 1: real orders and snapshots up to the day before, published through the gate."""
    with pytest.MonkeyPatch.context() as patch:
        home = use_home(tmp_path_factory.mktemp("gates"), patch)
        run_to_the_gate(BASE, [BASE - timedelta(days=6), BASE])
        check(BASE)
        release(BASE)
        yield home
    settings.cache_clear()


@pytest.fixture
def base(built: Path, home: Path) -> releases.Release:
    """That home, for one test."""
    shutil.copytree(built, home)
    settings.cache_clear()
    return releases.required(CHURN.name)


def daily(orders: Change = same, features: Change = same) -> None:
    run_to_the_gate(DAY, [BASE - timedelta(days=6), BASE, DAY], orders, features)


def test_a_real_day_passes_and_its_verdicts_are_in_the_release(base: releases.Release, home: Path) -> None:
    assert base.gates["orders_volume"].expectations > 1000, "the first run: each day of it"
    daily()
    assert check(DAY).message.endswith("limits hold")
    made = release(DAY)
    assert {name: made.gates[name].verdict for name in GATES} == dict.fromkeys(GATES, "passed")
    assert {name: made.gates[name].expectations for name in GATES} == {
        "orders_volume": 2,
        "orders_repeated": 1,
        "null_ratio": 29,
        "orders_shift": 2,
        "features_shift": 25,
    }
    assert made.accepted == []
    evidence = json.loads((home / "evidence" / "churn-1998-06-24" / "distribution_check.json").read_text())
    assert (evidence["base"], evidence["findings"]) == (1, [])
    event = next(
        e for e in ledger.events(CHURN.name) if e["stage"] == "distribution_check" and e["state"] == "COMPLETE"
    )
    assert set(event["read"]) == {ORDERS, FEATURES}


def half(orders: pd.DataFrame) -> pd.DataFrame:
    return orders.iloc[::2]


def none(orders: pd.DataFrame) -> pd.DataFrame:
    return orders.iloc[:0]


def rush(orders: pd.DataFrame) -> pd.DataFrame:
    """Five times as many orders, of other customers."""
    ids, who = orders["order_id"], orders["customer_id"]
    return pd.concat(
        [orders.assign(order_id=ids + 10**6 * n, customer_id=(who + 7 * n) % 23_570 + 1) for n in range(5)]
    )


def twice(orders: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([orders, orders.assign(order_id=orders["order_id"] + 10**6)])


def dollars(orders: pd.DataFrame) -> pd.DataFrame:
    return orders.assign(total_cents=orders["total_cents"] // 100)


def in_dozens(orders: pd.DataFrame) -> pd.DataFrame:
    return orders.assign(units=orders["units"] * 12)


def without_units(orders: pd.DataFrame) -> pd.DataFrame:
    return orders.assign(units=orders["units"].astype("float64").where(np.arange(len(orders)) > 0))


def forgets_30_days(snapshot: pd.DataFrame) -> pd.DataFrame:
    return snapshot.assign(orders_30d=0)


def loses_gaps(snapshot: pd.DataFrame) -> pd.DataFrame:
    kept = snapshot["customer_id"] % 10 > 0
    return snapshot.assign(days_between_orders=snapshot["days_between_orders"].where(kept))


def loses_customers(snapshot: pd.DataFrame) -> pd.DataFrame:
    return snapshot[snapshot["customer_id"] % 100 > 0]


@pytest.mark.parametrize(
    ("orders", "features", "gates", "told"),
    [
        (half, same, {"orders_volume"}, "analytics.orders.known_at: 1998-06-24 brought 22 orders, 38% of the 58 that"),
        (none, same, {"orders_volume"}, "1998-06-24 brought 0 orders, 0% of the 58 that the days before it lead to"),
        (
            twice,
            same,
            {"orders_repeated"},
            "44 of 88 new orders up to 1998-06-24 repeat another one in customer",
        ),
        (rush, same, {"orders_volume"}, "1998-06-24 brought 220 orders, "),
        (dollars, same, {"orders_shift"}, "analytics.orders.total_cents: 44 orders of 1998-06-24: KS distance "),
        (in_dozens, same, {"orders_shift"}, "analytics.orders.units: 44 orders of 1998-06-24: KS distance 0."),
        (without_units, same, {"null_ratio"}, "analytics.orders.units: 44 orders of 1998-06-24: 2.27% without a value"),
        (same, forgets_30_days, {"features_shift"}, "features.customers.orders_30d: snapshot 1998-06-24: PSI 0."),
        (same, loses_customers, {"features_shift"}, "features.customers.customer_id: snapshot 1998-06-24: 23,335 cust"),
        (same, loses_gaps, {"null_ratio"}, "features.customers.days_between_orders: snapshot"),
    ],
)
def test_each_fault_stops_the_line_and_is_named(
    base: releases.Release, orders: Change, features: Change, gates: set[str], told: str
) -> None:
    daily(orders, features)
    with pytest.raises(GateFailed) as failure:
        check(DAY)
    message = str(failure.value)
    assert told in message
    for gate in gates:
        assert f"`plumb gate accept {gate} --as-of 1998-06-24 --why …`" in message
    assert "start over with `plumb ingest --as-of 1998-06-24`" in message
    assert ("a changed definition in customers.sql does this too" in message) == (features is not same)
    event = list(ledger.events(CHURN.name))[-1]
    assert (event["state"], event["stage"]) == ("GATE_FAILED", "distribution_check")
    assert {name for name, verdict in event["gates"].items() if verdict["verdict"] == "failed"} == gates
    assert candidates.rejected("churn") == ["batch 1"]
    assert releases.numbers(CHURN.name) == [1]
    if orders is not none:
        assert "such as order_id " in message or "such as customer_id " in message


def test_a_shop_whose_orders_repeat_is_held_to_its_own_past() -> None:
    """Each order three times, as in a shop that sells one thing at one price: two in three repeat, on every day."""
    day, limits = date(1997, 10, 7), thresholds.load()
    once = real_shop.orders(day, day - timedelta(days=80))
    orders = pd.concat([once.assign(order_id=once["order_id"] + n * 10**6) for n in range(3)], ignore_index=True)
    _, findings = distribution_check.judge(orders, {}, day, day, limits)
    assert findings == []
    again = orders[orders["known_on"] == day].assign(order_id=lambda rows: rows["order_id"] + 5 * 10**6)
    _, findings = distribution_check.judge(pd.concat([orders, again], ignore_index=True), {}, day, day, limits)
    assert [item.gate for item in findings] == ["orders_repeated"]
    assert "67% did in the 28 days before: at most 75%" in findings[0].told


def test_what_is_real_is_accepted_with_a_reason_that_the_release_names(base: releases.Release) -> None:
    daily(rush)
    with pytest.raises(GateFailed):
        check(DAY)
    made = accept(CHURN, "orders_volume", DAY, "the summer sale", by="ana")
    daily(rush)
    assert check(DAY).message.endswith("; accepted: orders_volume")
    published = release(DAY)
    (entry,) = published.accepted
    assert (entry["gate"], entry["why"], entry["by"], entry["at"]) == (
        "orders_volume",
        "the summer sale",
        "ana",
        made.at,
    )
    assert "1998-06-24 brought 220 orders" in entry["found"][0]
    assert published.gates["orders_volume"].verdict == "passed"
    assert releases.read(CHURN.name, 2) == published, "it is read back"


def test_an_acceptance_lets_one_gate_of_one_day_through(base: releases.Release) -> None:
    accept(CHURN, "orders_volume", DAY + timedelta(days=1), "another day", by="ana")
    accept(CHURN, "features_shift", DAY, "another gate", by="ana")
    daily(half)
    with pytest.raises(GateFailed, match="orders_volume"):
        check(DAY)


def test_structural_gates_and_empty_reasons_are_not_accepted(base: releases.Release) -> None:
    for gate in ("orders_expectations", "parity", "orders_volumes"):
        with pytest.raises(AcceptanceError, match=rf"{gate} cannot be accepted: only these can"):
            accept(CHURN, gate, DAY, "please")
    with pytest.raises(AcceptanceError, match=r"orders_volume of 2099-01-01: that day is not over, the clock says"):
        accept(CHURN, "orders_volume", date(2099, 1, 1), "the future")
    with pytest.raises(AcceptanceError, match=r"release \d+ covers .* already, so no run of that day would read this"):
        accept(CHURN, "orders_volume", BASE, "too late")
    with pytest.raises(AcceptanceError, match="say why"):
        accept(CHURN, "orders_volume", DAY, "  ")
    accept(CHURN, "orders_volume", DAY, "a strike", by="ana")
    with pytest.raises(Conflict, match=r"was accepted before by ana at .*: a strike; nothing was changed"):
        accept(CHURN, "orders_volume", DAY, "another reason", by="eve")
    assert [(item.gate, item.why) for item in acceptances.listed("churn")] == [("orders_volume", "a strike")]


def test_a_run_of_several_days_is_judged_day_by_day(base: releases.Release) -> None:
    last = DAY + timedelta(days=3)
    days = [BASE - timedelta(days=6), BASE, last]
    run_to_the_gate(last, days)
    check(last)
    assert release(last).gates["orders_volume"].expectations == 8
    gap = last + timedelta(days=2)
    run_to_the_gate(last + timedelta(days=3), [*days, last + timedelta(days=3)], lambda o: o[o["known_on"] != gap])
    with pytest.raises(GateFailed, match="orders_volume: analytics.orders.known_at: 1998-06-29 brought 0 orders"):
        check(last + timedelta(days=3))


def test_a_day_that_the_contract_says_is_closed_is_no_gap(
    base: releases.Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(ROOT / "contracts", tmp_path / "contracts")
    path = tmp_path / "contracts" / "shop.orders.odcs.yaml"
    closed = f"{DAY:%m-%d}"
    said = f'customProperties:\n  - {{property: closedDays, value: ["{closed}"]}}\n'
    path.write_text(path.read_text().replace("customProperties:\n", said))
    run_to_the_gate(DAY, [BASE, DAY], lambda orders: orders[orders["known_on"] != DAY])
    with pytest.raises(GateFailed, match=f"{DAY} brought 0 orders"):
        check(DAY)
    monkeypatch.setenv("PLUMBLINE_CONTRACTS", str(tmp_path / "contracts"))
    settings.cache_clear()
    run_to_the_gate(DAY, [BASE, DAY], lambda orders: orders[orders["known_on"] != DAY])
    check(DAY)


def test_a_young_shop_is_judged_by_what_it_has(home: Path) -> None:
    first = date(1997, 1, 5)
    run_to_the_gate(first, [first])
    check(first)
    gates = release(first).gates
    assert {gates[name].verdict for name in GATES} == {"passed"}
    assert gates["orders_volume"].expectations == gates["features_shift"].expectations == 0, "nothing to go by yet"
