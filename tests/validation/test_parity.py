"""The gate `parity` on real Redis, Feast and Delta: it lets equal things pass, and each kind of difference stops it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from feature_repo import online_rows
from plumbline import clock
from plumbline.errors import Conflict, GateFailed
from plumbline.lake import tables as lake
from plumbline.pipeline import leases
from plumbline.servers import online_store, services
from plumbline.settings import settings
from plumbline.state import ledger
from products.churn import CHURN
from serving.errors import Refused
from serving.features import OnlineFeatures
from tests.conftest import use_home
from tests.validation import parity_world as world
from tests.validation.parity_world import DAYS, EXPIRED, NULLS, TTL, N
from validation import parity, point_in_time


@pytest.fixture(scope="module")
def parity_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        home = use_home(tmp_path_factory.mktemp("parity"), patch)
        yield home
        settings.cache_clear()
        services.stop_all()
    settings.cache_clear()


@pytest.fixture
def online(parity_home: Path) -> dict[int, pa.Table]:
    """Release 2, online."""
    settings.cache_clear()
    return world.build()


def failure(**asked: Any) -> str:
    with pytest.raises(GateFailed) as failed:
        world.check(**asked)
    return str(failed.value)


def newest_event() -> dict[str, Any]:
    return [event for event in ledger.events("churn") if event["stage"] == "parity_check"][-1]


def read(*customers: int) -> list[Any]:
    return [stamp for _, stamp, _ in online_rows.OnlineRows(CHURN, CHURN.view).read(list(customers))]


def test_a_release_that_is_online_as_it_is_offline_passes(online: dict[int, pa.Table]) -> None:
    world.answer([1, 2, NULLS])
    told = world.check()
    assert (told["customers"], told["expired"], told["mismatches"]) == (N, 1, 0)
    names = len(online_rows.OnlineRows(CHURN, CHURN.view).names)
    assert told["compared_values"] == 2 + (N - 1) * (names + 1) + 1 + 3 * (14 + 2)
    assert (told["answers_logged"], told["answers_replayed"]) == (3, 3)
    event = newest_event()
    assert (event["state"], event["feature_parity_mismatch_ratio"]) == ("COMPLETE", 0.0)
    assert event["gates"]["parity"]["verdict"] == "passed"
    assert online_store.online(online_store.client(), CHURN) == (2, clock.end_of(DAYS[2]))


def test_another_rounding_of_one_value_is_found_and_its_customer_is_served_no_more(online: dict[int, pa.Table]) -> None:
    right = online[2]["avg_ticket"][6].as_py()
    world.write(world.changed(online[2], 7, avg_ticket=round(right, 2)))
    told = failure()
    assert f"1 of {newest_event()['compared_values']:,} values differ" in told
    assert "release 2 (features.customers@v1)" in told
    assert "avg_ticket of 1 customer, such as customer 7: online " in told and f"offline {right!r}" in told
    assert "`plumb materialize`" in told
    event = newest_event()
    assert event["state"] == "GATE_FAILED"
    assert event["feature_parity_mismatch_ratio"] == 1 / event["compared_values"]
    assert event["gates"]["parity"]["verdict"] == "failed"
    evidence = json.loads(Path(event["gates"]["parity"]["report"]).read_text())
    (kept,) = evidence["first_mismatches"]
    assert (kept["entity"], kept["feature"], kept["offline"]) == (7, "avg_ticket", right)
    assert online_store.online(online_store.client(), CHURN) is None, (
        "or materialize would say that nothing is to be done"
    )
    served = OnlineFeatures(CHURN, "churn_v1")
    with pytest.raises(Refused) as refused:
        served.read([7])
    assert refused.value.status == 503
    assert served.read([8])[0].event_time == clock.end_of(DAYS[2])
    assert not (settings().home / "rejected").exists()

    world.put_online(2, online[2])
    assert world.check()["mismatches"] == 0


def test_the_last_bit_counts(online: dict[int, pa.Table]) -> None:
    import numpy as np

    right = np.float32(online[2]["days_between_orders"][3].as_py())
    world.write(world.changed(online[2], 4, days_between_orders=float(np.nextafter(right, np.float32(1e9)))))
    assert "days_between_orders of 1 customer, such as customer 4" in failure()


def test_a_missing_customer_and_a_stranger(online: dict[int, pa.Table]) -> None:
    online_rows.OnlineRows(CHURN, CHURN.view).remove({9})
    world.write(world.changed(online[2], 1, customer_id=5_000))
    told = failure()
    assert "customer 9: online none, offline 1998-07-01" in told
    assert "customer 5000: online 1998-07-01 00:00:00+00:00, offline none" in told
    assert read(5_000) == [None]


def test_a_row_of_the_day_before_is_not_the_releases(online: dict[int, pa.Table]) -> None:
    world.write(world.changed(online[1], 3))
    told = failure()
    assert "event_time of 1 customer, such as customer 3" in told
    assert "release_id of 1 customer, such as customer 3: online 1, offline 2" in told


def test_an_expired_customer_must_answer_expired(online: dict[int, pa.Table]) -> None:
    long_ago = clock.end_of(DAYS[2]) - TTL - timedelta(seconds=1)
    world.write(world.changed(online[2], 1, customer_id=EXPIRED, event_time=long_ago))
    assert world.check()["mismatches"] == 0, "the ttl says no on both sides"
    world.write(world.changed(online[2], 1, customer_id=EXPIRED))
    assert f"event_time of 1 customer, such as customer {EXPIRED}" in failure()


def test_a_row_within_the_ttl_that_is_expired_online(online: dict[int, pa.Table]) -> None:
    world.write(world.changed(online[2], 2, event_time=clock.end_of(DAYS[2]) - TTL - timedelta(seconds=1)))
    assert "event_time of 1 customer, such as customer 2" in failure()


def test_a_ttl_that_is_not_the_definitions(online: dict[int, pa.Table], monkeypatch: pytest.MonkeyPatch) -> None:
    from feature_repo.churn.definitions import customer_features

    monkeypatch.setattr(customer_features, "ttl", TTL + timedelta(days=1))
    assert "the view's ttl: online 14 days, 0:00:00, offline 15 days" in failure()


def test_a_mark_that_names_another_release(online: dict[int, pa.Table]) -> None:
    world.mark(1)
    told = failure()
    assert "release 1 (features.customers@v0)" in told
    assert f"release_id of {N - 1} customers" in told


def test_a_sample_that_fails_is_followed_by_everyone(online: dict[int, pa.Table]) -> None:
    world.write(online[1])
    told = failure(sample=2)
    assert f"event_time of {N - 1} customers" in told
    assert newest_event()["customers"] == N


def test_a_sample_overlooks_no_stranger_and_nobody_who_is_missing(online: dict[int, pa.Table]) -> None:
    online_rows.OnlineRows(CHURN, CHURN.view).remove({9})
    world.write(world.changed(online[2], 1, customer_id=5_000))
    told = failure(sample=1)
    assert "customer 9: online none" in told and "customer 5000: online" in told


def test_a_sample_is_the_same_for_the_same_seed(online: dict[int, pa.Table], monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[int]] = []
    whole = online_rows.OnlineRows.read
    monkeypatch.setattr(online_rows.OnlineRows, "read", lambda self, c: (seen.append(c), whole(self, c))[1])
    for seed in (1, 1, 2):
        assert world.check(sample=10, seed=seed)["customers"] == 10
    assert seen[0] == seen[1] != seen[2]


def test_nothing_online_is_not_a_pass(online: dict[int, pa.Table]) -> None:
    online_store.client().delete(CHURN.online_mark)
    with pytest.raises(parity.ParityError, match="plumb materialize"):
        world.check()


def test_it_waits_for_no_materialization(online: dict[int, pa.Table]) -> None:
    with leases.lease(CHURN, "materialize", "materialization"):
        with pytest.raises(Conflict, match="another materialization"):
            world.check()


def test_an_answer_that_was_computed_otherwise_is_found_until_it_is_left_out(online: dict[int, pa.Table]) -> None:
    world.answer([1])
    world.check()
    world.answer([2], days_since_last_order=10_000)
    for _ in range(2):  # a second try is no way past it
        told = failure()
        assert "days_since_last_order of 1 customer, such as customer 2, request request of 2: online 10000" in told
        assert "--since" in told
        assert newest_event()["answers_logged"] == 1, "the one before was checked"
    assert online_store.online(online_store.client(), CHURN) is not None, "the rows are right"
    world.answer([3])
    logged = lake.open_table("serving.predictions").to_pyarrow_table().to_pylist()
    last = max(row["logged_at"] for row in logged)
    assert world.check(since=last)["answers_replayed"] == 1
    assert world.check()["answers_logged"] == 0


def test_an_on_demand_function_that_rounds_otherwise_is_found(
    online: dict[int, pa.Table], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The predictor computed by the registry's function; here definitions.py has another one by now."""
    from feature_repo.churn.definitions import churn_recency

    world.answer([1, 2])
    world.check()
    world.answer([1, 2])

    def rounded(inputs: dict[str, Any]) -> dict[str, Any]:
        days = zip(inputs["last_order_day"], inputs["request_time"], strict=True)
        return {"days_since_last_order": [round((asked + 86_399) / 86_400) + 1 - day for day, asked in days]}

    monkeypatch.setattr(churn_recency.feature_transformation, "udf", rounded)
    assert "days_since_last_order of 2 customers" in failure()


def test_a_read_that_rounds_on_the_way_to_the_model_is_found(
    online: dict[int, pa.Table], monkeypatch: pytest.MonkeyPatch
) -> None:
    from serving import service_read

    plain = service_read._plain
    monkeypatch.setattr(service_read, "_plain", lambda v: round(p, 2) if isinstance(p := plain(v), float) else p)
    world.answer([1, 2, NULLS])
    told = failure()
    assert "avg_ticket of 2 customers, such as customer 1, request request of 1" in told
    assert "taken out of Redis" not in told
    event = newest_event()
    assert 0 < event["mismatches"] <= 6
    assert event["feature_parity_mismatch_ratio"] == event["mismatches"] / event["compared_values"]


def test_an_answer_is_held_against_the_release_that_was_online_then(online: dict[int, pa.Table]) -> None:
    world.put_online(1, online[1])
    before = settings().home / "ledger"
    _shift(before)  # the answers below come a minute after release 1, a minute before release 2
    world.answer([1, 2])
    world.put_online(2, online[2])
    assert world.check()["answers_replayed"] == 2
    world.answer([3])
    world.put_online(1, online[1])
    world.put_online(2, online[2])
    assert world.check()["answers_replayed"] == 1, "one that may be of either"


def test_an_answer_from_another_release_than_was_online(online: dict[int, pa.Table]) -> None:
    _shift(settings().home / "ledger")
    world.write(online[1])
    world.answer([1])
    world.write(online[2])
    assert "release_id of 1 customer, such as customer 1, request request of 1: online 1, offline 2" in failure()


def test_answers_of_a_release_whose_tables_are_gone_are_counted(online: dict[int, pa.Table]) -> None:
    world.answer([1])
    (settings().home / "releases" / "churn" / "000001.json").unlink()
    _shift(settings().home / "ledger")
    world.put_online(1, online[1])
    world.answer([2])
    world.put_online(2, online[2])
    told = world.check()
    assert told["answers_logged"] == 2
    assert told["mismatches"] == 0
    assert told["answers_replayed"] + told["answers_unreadable"] == 2


def test_a_log_that_was_compacted_is_replayed_again(online: dict[int, pa.Table]) -> None:
    world.answer([1])
    world.answer([2])
    assert world.check()["answers_logged"] == 2
    assert world.check()["answers_logged"] == 0
    lake.open_table("serving.predictions").optimize.compact()
    told = world.check()
    assert (told["answers_logged"], told["mismatches"]) == (2, 0)


@pytest.mark.parametrize(
    ("left", "right", "equal"),
    [(1, 1, True), (1, 1.0, False), (0.0, -0.0, False), (None, None, True), (None, 0, False), (0.1, 0.1, True)],
)
def test_same_is_bit_for_bit(left: object, right: object, equal: bool) -> None:
    assert point_in_time.same(left, right) is equal


def _shift(folder: Path) -> None:
    """Makes what the ledger tells of a minute older."""
    from datetime import datetime

    for path in folder.glob("churn/*.json"):
        event = json.loads(path.read_text())
        event["at"] = (datetime.fromisoformat(event["at"]) - timedelta(minutes=1)).isoformat()
        path.chmod(0o644)
        path.write_text(json.dumps(event))
