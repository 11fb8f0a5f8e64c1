"""A customer is erased from a made-up home: real Delta tables, Redis through Feast, a shop in SQLite. No Spark."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa
from deltalake import DeltaTable, write_deltalake

from feature_repo import catalog, forget, live_rows
from feature_repo import store as feature_store
from ingestion.database import changes, still_shown
from ingestion.database.source import engine, schema
from observability.lake_facts import LakeFacts
from plumb.reports import why
from plumbline import files
from plumbline.errors import Conflict
from plumbline.lake import tables as lake
from plumbline.pipeline import erase, erased_rows, lake_owner, leases, retention, undo
from plumbline.pipeline.erased_rows import EraseError
from plumbline.servers import live_mark, online_mark, online_store
from plumbline.state import ledger, objects, releases
from plumbline.state.releases import Release
from products.churn import CHURN
from serving.features import OnlineFeatures
from tests import live_online
from tests.feature_repo.live_world import VIEW, land
from tests.plumb.test_cli import plumb
from tests.validation import parity_world as world

WHO, OTHER = 900_719, 17
THEIRS, OTHERS = (8_800_001, 8_800_002), (501, 502)
"""Orders of the customer, and of another one. Each has a return."""
NOON = datetime(1998, 6, 29, 12, tzinfo=UTC)
RAW_ORDERS, RAW_RETURNS, RAW_CUSTOMERS = CHURN.raw[0], "raw.returns", "raw.customers"
TABLES = (RAW_ORDERS, RAW_CUSTOMERS, RAW_RETURNS, "analytics.orders", "features.customers", "serving.predictions")
DEAD, EVENTS, ACTIVITY = "raw.order_dead_letters", "raw.order_events", CHURN.streams["customer_activity"]
STREAM = (DEAD, EVENTS, ACTIVITY)
KEYS = re.compile(rf"{WHO}|{'|'.join(map(str, THEIRS))}".encode())
ALLOWED = {"redis"}
"""Below the home: Redis's own folder, whose file is binary; it is asked itself."""


def landed(day: int, **columns: list[Any]) -> pa.Table:
    """Rows as raw has them: with the stamps of the landing of a day of June."""
    stamp, count = pa.timestamp("us", "UTC"), len(next(iter(columns.values())))
    at = pa.array([datetime(1998, 6, day, 12, tzinfo=UTC)] * count, stamp)
    stamps = {"recorded_at": at, "known_at": at, "loaded_at": at, "deleted_at": pa.nulls(count, stamp)}
    return pa.table({**columns, **stamps, "batch_id": [f"churn-1998-06-{day}..1998-06-{day}"] * count})


def orders(day: int, place: int) -> pa.Table:
    """An order of each of the two customers."""
    keys, days = [THEIRS[place], OTHERS[place]], pa.array([date(1998, 6, day)] * 2)
    return landed(day, order_id=keys, customer_id=[WHO, OTHER], order_date=days, units=[1, 2], total_cents=[100, 250])


def returns(day: int, place: int) -> pa.Table:
    at = pa.array([NOON] * 2, pa.timestamp("us", "UTC"))
    return landed(day, order_id=[THEIRS[place], OTHERS[place]], returned_at=at, cents=[50, 60])


def fill_shop(*customers: int) -> None:
    """The shop with these customers' rows alone."""
    database, tables = engine(), schema(CHURN)
    day = {0: 29, 1: 30}
    with database.begin() as connection:
        tables.drop_all(connection)
        tables.create_all(connection)
        for customer, keys in ((WHO, THEIRS), (OTHER, OTHERS)):
            if customer not in customers:
                continue
            noon = NOON.replace(tzinfo=None)
            row = {"customer_id": customer, "signed_up_at": noon, "recorded_at": noon}
            connection.execute(sa.insert(tables.tables["customers"]), [row])
            for place, key in enumerate(keys):
                at = datetime(1998, 6, day[place], 12)
                mine, paid = int(customer == OTHER), (100, 250)
                order = {"order_id": key, "customer_id": customer, "order_date": at.date(), "units": mine + 1}
                connection.execute(
                    sa.insert(tables.tables["orders"]), [{**order, "total_cents": paid[mine], "recorded_at": at}]
                )
                back = {"order_id": key, "returned_at": noon, "cents": 50 + 10 * mine, "recorded_at": at}
                connection.execute(sa.insert(tables.tables["returns"]), [back])
    database.dispose()


def as_customer(rows: pa.Table) -> pa.Table:
    """The snapshot with customer 5 under the number that is searched for."""
    ids = rows["customer_id"]
    renamed = pc.if_else(pc.equal(ids, 5), pa.scalar(WHO, pa.int64()), ids)
    return rows.set_column(rows.schema.get_field_index("customer_id"), rows.schema.field("customer_id"), renamed)


def build(home: Path) -> None:
    """Three releases: two of features alone, the third of raw and a mart too. It is online, and copies lie about."""
    lake_owner.require_own_lake()
    online_store.client()  # started first: Feast settings name its address
    feature_store.apply(CHURN)
    for number, day in world.DAYS.items():
        rows = as_customer(world.snapshot(day, number))
        world.publish(number, rows)
        world.put_online(number, rows)
    for place, day in ((0, 29), (1, 30)):
        write_deltalake(lake.uri(RAW_ORDERS), orders(day, place), mode="append", configuration=lake.KEEP_LOG)
        write_deltalake(lake.uri(RAW_RETURNS), returns(day, place), mode="append", configuration=lake.KEEP_LOG)
        mart = pa.concat_tables([orders(29, 0), orders(30, 1)][: place + 1])
        write_deltalake(lake.uri("analytics.orders"), mart, mode="overwrite", configuration=lake.KEEP_LOG)
    DeltaTable(lake.uri(RAW_ORDERS)).create_checkpoint()
    signed = pa.array([NOON] * 2, pa.timestamp("us", "UTC"))
    write_deltalake(lake.uri(RAW_CUSTOMERS), landed(29, customer_id=[WHO, OTHER], signed_up_at=signed))
    world.answer([WHO, OTHER])
    tables = {t: v for t in TABLES[:5] if (v := lake.version(t)) is not None}
    releases.publish(Release(3, "churn", world.DAYS[2], 2, tables, {}, "code", "lock", "churn-1998-06-30", "now"))
    mark(3)
    dataset = pa.table({"customer_id": [WHO, OTHER], "churned": [True, False]})
    objects.create_bytes("training/churn/3/dataset.parquet", parquet(dataset))
    files.write_whole(
        home / "training/churn/3/dataset.json",
        files.dumps({"data_version": f"delta:features.customers@v={tables['features.customers']}"}),
    )
    objects.create_bytes("quarantine/churn/batch/orders.parquet", parquet(orders(30, 1)))
    objects.create_json("evidence/churn-1998-06-30/rows_deleted.json", {"keys": list(THEIRS)})
    objects.create_json("evidence/churn-1998-06-30/other.json", {"keys": list(OTHERS)})
    text = f"raw.orders: 2 keys are gone, such as order_id {OTHERS[0]}, {THEIRS[0]}, {OTHERS[1]}"
    ledger.record(
        "churn", {"stage": "ingest", "run_id": "r", "state": "GATE_FAILED", "error": text, "as_of": "1998-06-30"}
    )
    (home / "lineage.ndjson").write_text(json.dumps({"eventType": "FAIL", "why": f"customer {WHO}"}) + "\n")
    for path in ("data_docs/page.html", "report/churn/index.html", "dbt/target/run_results.json", "tmp/left.csv"):
        files.write_whole(home / path, f"<td>{WHO}</td>")
    files.write_whole(home / "data_docs/other.html", f"<td>{OTHER}</td>")
    package = home / "dlt/pipelines/shop/load/loaded/1/completed_jobs/orders.parquet"
    files.write_whole(package, parquet(orders(30, 1)))
    fill_shop(OTHER)


def run_stream() -> None:
    """Events of both customers, dead letters that name them by key, by value or not at all, and what came of them; and
    a release that names the tables as they were before the last micro-batch."""
    for number, at in enumerate((world.NOW - timedelta(minutes=2), world.NOW - timedelta(minutes=1))):
        place = {"topic": ["shop.orders"] * 2, "partition": [0, 1], "offset": [number, number]}
        known = {"known_at": pa.array([at] * 2, pa.timestamp("us", "UTC")), "known_date": [at.date()] * 2}
        events = {"event_id": [f"e{number}", f"f{number}"], "customer_id": [WHO, OTHER]}
        keys = {"order_id": [THEIRS[number], OTHERS[number]]}
        append(EVENTS, pa.table({**events, **keys, **place, **known}))
        of_who = [f'{{"customer_id": {WHO}, "units": "\xff'.encode("latin1"), b"{"][number]
        messages = {"key": pa.array([str(WHO).encode() if number else None, b"17"]), "value": [of_who, b"17"]}
        append(DEAD, pa.table({**place, **messages, **known}))
        live_rows.write(CHURN, VIEW, land(f"q/{number}", at, {WHO: number, OTHER: 7}))
        if not number:
            current = releases.required("churn")
            tables = {**current.tables, **{table: lake.version(table) or 0 for table in STREAM}}
            releases.publish(replace(current, release_id=4, base=3, tables=tables, run_id="churn-stream"))
            mark(4)


def append(table: str, rows: pa.Table) -> None:
    configuration = lake.KEEP_LOG
    write_deltalake(lake.uri(table), rows, mode="append", partition_by=["known_date"], configuration=configuration)


def mark(number: int) -> None:
    store, client = feature_store.open_store(CHURN), online_store.client()
    online = [WHO if c == 5 else c for c in range(1, world.N + 1) if c != world.EXPIRED]
    until = datetime(1998, 7, 1, tzinfo=UTC)
    keys = forget.online_keys.keys(store, CHURN, online)
    ledger.record("churn", {"stage": "materialize", "state": "START", "release_id": number, "run_id": "r"})
    online_mark.write(client, CHURN, number, until, keys)
    ledger.record("churn", {"stage": "materialize", "state": "COMPLETE", "release_id": number, "run_id": "r"})


def parquet(rows: pa.Table) -> bytes:
    out = io.BytesIO()
    pq.write_table(rows, out)
    return out.getvalue()


def erased(customer: int = WHO, why: str = "a request", forgets: Any = None) -> erase.Erased:
    return erase.erase(
        CHURN,
        customer,
        why,
        lambda person: still_shown.refuse(CHURN, person),
        forgets or (lambda release: forget.forget(CHURN, customer, release)),
    )


def looked() -> erase.Erased:
    return erase.look(CHURN, WHO, lambda person: still_shown.refuse(CHURN, person), lambda: forget.count(CHURN, WHO))


def leftovers(home: Path) -> list[str]:
    """Every file below the home that holds a key of the customer: parquet by its values, everything by its bytes."""
    left = []
    for path in sorted(home.rglob("*")):
        if not path.is_file() or path.relative_to(home).parts[0] in ALLOWED:
            continue
        content = path.read_bytes()
        text = str(pq.read_table(io.BytesIO(content)).to_pydict()).encode() if path.suffix == ".parquet" else b""
        if KEYS.search(content) or KEYS.search(text):
            left.append(str(path.relative_to(home)))
    return left


def others(table: str, version: int | None = None) -> list[dict[str, Any]]:
    """The rows of all others, in the order of their text."""
    rows = lake.open_table(table, version).to_pyarrow_table().to_pylist()
    theirs = [r for r in rows if r.get("customer_id") != WHO and r.get("order_id") not in THEIRS]
    theirs = [r for r in theirs if "value" not in r or not KEYS.search((r["key"] or b"") + r["value"])]
    return sorted(theirs, key=str)


def tree(home: Path) -> dict[str, str]:
    held = (p for p in home.rglob("*") if p.is_file() and p.relative_to(home).parts[0] not in ("redis", "leases"))
    return {str(path): files.sha256(path.read_bytes()) for path in held}


@pytest.fixture
def person(home: Path) -> Path:
    build(home)
    return home


def test_an_erased_customer_is_nowhere_below_the_home_and_all_others_are_as_they_were(person: Path) -> None:
    before, files_before = {table: others(table) for table in TABLES}, tree(person)
    promised = looked()
    assert tree(person) == files_before, "a dry run changes nothing"
    told = plumb("erase", str(WHO), "--why", "a request", "--yes", "--json")
    assert told.returncode == 0, told.stderr
    done = erase.Erased(**{k: v for k, v in json.loads(told.stdout).items() if k != "places"})
    assert done == replace(promised, release=4)
    assert done.rows == {
        "analytics.orders": 3,
        "features.customers": 2,
        "raw.customers": 1,
        "raw.orders": 2,
        "raw.returns": 2,
        "serving.predictions": 1,
    }
    assert (done.copies["training"], done.copies["quarantine"], done.copies["evidence"]) == (1, 1, 1)
    assert done.lost == ["dataset of release 3", "release 1", "release 2", "release 3"]
    assert leftovers(person) == []
    assert {table: others(table) for table in TABLES} == before
    assert (person / "data_docs/other.html").exists() and objects.read("evidence/churn-1998-06-30/other.json")
    kept = pq.read_table(io.BytesIO(objects.read("quarantine/churn/batch/orders.parquet").content))  # type: ignore[union-attr]
    assert kept["order_id"].to_pylist() == [OTHERS[1]]


def test_the_release_in_force_goes_on_and_an_older_one_says_what_became_of_it(person: Path) -> None:
    erased()
    current = releases.required("churn")
    assert (current.release_id, current.base, current.why) == (4, 3, "a customer was erased: a request")
    for table, version in current.tables.items():
        assert len(lake.open_table(table, version).to_pyarrow_table()) == len(others(table, version)) > 0
    sentence = r"features.customers: version 1 cannot be read since \d{4}-\d\d-\d\d: a customer was erased"
    old = releases.read("churn", 2).version("features.customers")
    with pytest.raises(lake.LakeError, match=sentence):
        lake.open_table("features.customers", old)
    with pytest.raises(lake.LakeError, match=sentence):
        lake.at("features.customers", old)
    with pytest.raises(lake.LakeError, match="a customer was erased"):
        undo.undo(CHURN, 3, why="back")
    assert {item.table for item in retention.vacuum(CHURN, 0)} >= {"features.customers"}
    assert others("features.customers", current.tables["features.customers"])
    assert ledger.written_by(CHURN, "features.customers", current.tables["features.customers"]) is None
    told = plumb("releases", "undo", "--to", "1", "--why", "back", "--no-materialize")
    assert told.returncode == 1 and "Traceback" not in told.stderr, told.stderr
    assert "plumb: features.customers: version 0 cannot be read" in told.stderr


def test_who_asks_what_was_is_still_answered_of_everybody_else(person: Path) -> None:
    """The rows of the others are the same in the version that the erasure left; only what it did not leave is gone."""
    before = catalog.history("orders_90d")["releases"]
    erased()
    told = why.of_request(f"request of {OTHER}")
    assert told["release"]["release_id"] == 2 and told["features"]
    orders = [order["order_id"] for order in why.of_customer(OTHER)["orders"]]
    assert orders == [], "release 2, which wrote the online row, names no orders"
    points = {point["release_id"]: point["rows"] for point in catalog.history("orders_90d")["releases"]}
    assert points == {1: 0, **dict.fromkeys((2, 3, 4), before[-1]["rows"] - 1)}
    current = releases.required("churn")
    versions = current.tables["features.customers"], releases.read("churn", 3).tables["features.customers"]
    assert LakeFacts().at("features.customers", *versions).rows == len(others("features.customers", versions[0]))
    assert LakeFacts().at("features.customers", versions[0], 0).rows, "nor does a base that is gone take the rest"
    assert (
        lake.remaining("analytics.orders", releases.read("churn", 3).tables["analytics.orders"]).version()
        == (current.tables["analytics.orders"])
    )
    with pytest.raises(lake.LakeError, match="version 0 cannot be read since"):
        lake.remaining("features.customers", 0)


def test_online_the_customer_is_unknown_and_parity_holds_for_the_rest(person: Path) -> None:
    assert any(WHO.to_bytes(8, "little") in path.read_bytes() for path in (person / "redis").iterdir())
    erased()
    client = online_store.client()
    about = online_store.online(client, CHURN)
    assert about is not None and about[0] == 4
    assert online_store.rows_written(client, CHURN) == world.N - 2
    key = WHO.to_bytes(8, "little")
    assert not any(key in path.read_bytes() for path in (person / "redis").iterdir()), "Redis wrote its file anew"
    with pytest.raises(Exception, match="not known|unknown|no customer"):
        OnlineFeatures(CHURN, "churn_v1").read([WHO], world.NOW)
    assert [row.key for row in OnlineFeatures(CHURN, "churn_v1").read([OTHER], world.NOW)] == [OTHER]
    assert world.check()["state"] == "done"


def test_the_next_ingest_neither_brings_the_keys_back_nor_takes_them_for_deleted(person: Path) -> None:
    erased()
    database = engine()
    with database.connect() as connection:
        for source in CHURN.sources:
            names = {column.name: column.name for column in schema(CHURN).tables[source].columns}
            due = changes.due(connection, source, names, NOON + timedelta(days=9), [], None)
            assert (len(due.rows), len(due.deleted)) == (0, 0), source
    database.dispose()


@pytest.mark.parametrize("number", ["99999999999999999999", "-9223372036854775809"])
def test_a_number_that_no_customer_can_have_is_refused_without_a_traceback(home: Path, number: str) -> None:
    told = plumb("erase", "--why", "a request", "--", number)
    assert told.returncode == 2 and "Invalid value for 'customer'" in told.stderr and "Traceback" not in told.stderr


def test_while_the_shop_shows_the_customer_nothing_is_changed(person: Path) -> None:
    fill_shop(WHO, OTHER)
    before = tree(person)
    for ask in (erased, looked):
        with pytest.raises(EraseError, match=r"still shows the customer: 2 in orders, 1 in customers, 2 in returns"):
            ask()
    assert tree(person) == before


def test_killed_before_the_files_go_the_same_command_again_ends_right(person: Path) -> None:
    before = {table: others(table) for table in TABLES}

    def killed(release: Release) -> int:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        erased(forgets=killed)
    assert leftovers(person)
    again = erased()
    assert (again.release, releases.required("churn").release_id) == (None, 4)
    assert leftovers(person) == []
    assert {table: others(table) for table in TABLES} == before
    assert erased().places == looked().places == 0


def test_killed_between_two_tables_the_same_command_again_ends_right(person: Path) -> None:
    before = {table: others(table) for table in TABLES}
    current, rows = releases.required("churn"), erased_rows.find(CHURN, WHO)
    for table in (RAW_RETURNS, RAW_ORDERS, "analytics.orders"):
        assert erased_rows.leave_out(CHURN, rows, table, current.tables[table]) == lake.version(table)
    done = erased()
    assert (done.release, done.lost) == (4, ["dataset of release 3", "release 1", "release 2", "release 3"])
    assert leftovers(person) == []
    assert {table: others(table) for table in TABLES} == before
    named = releases.required("churn").tables
    assert {table: lake.content_version(table) for table in named} == named


def test_the_ledger_keeps_a_digest_and_counts_and_a_run_at_work_is_waited_for(person: Path) -> None:
    with leases.lease(CHURN, "ingest"), pytest.raises(Conflict):
        erased()
    with pytest.raises(EraseError, match="without the customer's number"):
        erased(why=f"request of {WHO}")
    erased()
    event = ledger.newest("churn", "erase", "COMPLETE")
    assert event is not None and event["rows"]["raw.orders"] == 2 and event["release_id"] == 4
    assert re.fullmatch("hmac-sha256:[0-9a-f]{64}", event["who"])
    assert str(WHO) not in json.dumps(event)


def test_an_erased_customer_is_nowhere_in_the_stream_either_and_the_stream_goes_on(person: Path) -> None:
    """Nothing that came after the release is taken back: neither from the tables nor from Redis."""
    run_stream()
    before = {table: others(table) for table in STREAM}
    assert looked().online == 2, "a row of each view"
    done = erased()
    assert {table: done.rows[table] for table in STREAM} == {DEAD: 2, EVENTS: 2, ACTIVITY: 2}
    assert (done.release, done.online) == (5, 2)
    assert leftovers(person) == []
    assert {table: others(table) for table in STREAM} == before
    assert {len(rows) for rows in before.values()} == {2}
    client, store = online_store.client(), feature_store.open_store(CHURN)
    (key,) = forget.online_keys.keys(store, CHURN, [WHO])
    assert not client.exists(key) and client.hget(live_mark.key(CHURN, VIEW), key) is None
    assert client.hget(live_mark.key(CHURN, VIEW), "rows") == b"1"
    at = world.NOW - timedelta(minutes=1)
    assert live_online.whole(CHURN, VIEW, at) and live_rows.repair(CHURN, VIEW) == 0
    assert OnlineFeatures(CHURN, "churn_v3").read([OTHER])[0].times[VIEW] == at
    assert lake.open_table(ACTIVITY, releases.required("churn").tables[ACTIVITY]).count() == 2


@pytest.mark.usefixtures("home")
def test_a_stream_at_work_is_in_the_way_of_an_erasure_and_of_a_vacuum_of_what_is_young(person: Path) -> None:
    with leases.lease(CHURN, "order_stream", "events"):
        with pytest.raises(Conflict):
            erased()
        with pytest.raises(Conflict):
            retention.vacuum(CHURN, 0)
        retention.vacuum(CHURN, 1, dry_run=True)
