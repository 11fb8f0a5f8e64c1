"""The exporter on a platform of a few rows: what it shows, what it cannot know, and what it does not read twice."""

from __future__ import annotations

import http.client
import json
import shutil
import sys
import threading
import urllib.request
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from observability import dataset_metrics, exporter, server
from observability.exporter import Exporter, Scrape
from plumbline import metrics
from plumbline.errors import ServiceUnavailable
from plumbline.lake import tables as lake
from plumbline.lineage import sending
from plumbline.product import Product
from plumbline.servers import services
from plumbline.settings import settings
from plumbline.state import objects, releases
from products.churn import CHURN
from products.images import IMAGES
from tests.conftest import use_home
from tests.observability import made_up_platform as platform

MONDAY, TUESDAY = date(1998, 6, 29), date(1998, 6, 30)
Samples = dict[str, float]


@pytest.fixture
def lived(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home whose clock is moved by its settings file, as a replay's is."""
    monkeypatch.delenv("PLUMBLINE_NOW")
    platform.set_clock(home, datetime(1998, 7, 1, tzinfo=UTC))
    settings.cache_clear()
    return home


def scraped(found: Exporter) -> Samples:
    """Every sample as `name{label="value"}`."""
    told = {}
    for family in found.collect():
        for sample in family.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
            told[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return told


def unreadable(samples: Samples) -> set[str]:
    return {name.split('"')[1] for name in samples if name.startswith("exporter_unreadable_total")}


def test_a_platform_that_is_well_is_shown_whole(lived: Path) -> None:
    platform.whole_day(MONDAY)
    platform.land(TUESDAY, 8)
    platform.publish(TUESDAY, 8)
    platform.train()
    platform.answer(5, datetime(1998, 6, 30, 23, 59, tzinfo=UTC))
    found = scraped(Exporter())
    assert unreadable(found) == set()
    expected = {
        "plumbline_clock_seconds": datetime(1998, 7, 1, tzinfo=UTC).timestamp(),
        "plumbline_replay": 1,
        "features_customers_freshness_seconds": 0,
        "raw_orders_freshness_seconds": 0,
        "serving_predictions_freshness_seconds": 60,
        "features_customers_rows": 18,
        "serving_predictions_rows": 5,
        'features_customers_null_ratio{column="customer_id"}': 0,
        "features_customers_due_days": 1,
        "features_customers_late_days": 0,
        'release_id{product="churn"}': 2,
        'release_age_seconds{product="churn"}': 0,
        'online_release_id{product="churn"}': 2,
        'materialization_lag_seconds{product="churn"}': 0,
        'feature_parity_mismatch_ratio{product="churn"}': 0,
        'gate_passed{gate="orders_volume",product="churn"}': 1,
        'gate_verdicts_total{gate="orders_volume",product="churn",verdict="passed"}': 2,
        'stage_seconds{product="churn",stage="ingest"}': 1.5,
        'stage_state{product="churn",stage="ingest",state="complete"}': 1,
        'stage_state{product="churn",stage="ingest",state="fail"}': 0,
        'stage_runs_total{product="churn",stage="ingest",state="complete"}': 2,
        'landing_records_total{outcome="landed",product="churn",table="raw.orders"}': 18,
        'champion_version{model="churn_xgb",product="churn"}': 1,
        'champion_metric{metric="log_loss",model="churn_xgb",model_version="1",product="churn"}': 0.3,
        "lineage_emit_failures_total": 0,
    }
    assert {name: found.get(name) for name in expected} == expected


def test_a_run_of_the_image_product_is_shown_by_what_it_came_to(lived: Path) -> None:
    platform.clean_images({"truncated": 2, "timeout": 1})
    platform.clean_images({"truncated": 1})
    found = scraped(Exporter())
    assert unreadable(found) == set()
    head = 'product="images"'
    expected = {
        f"clean_pictures{{{head}}}": 8,
        f"near_duplicate_groups{{{head}}}": 2,
        f'quarantined_pictures{{{head},reason="truncated"}}': 1,
        f'quarantined_pictures{{{head},reason="timeout"}}': None,
        f'stage_rows{{{head},stage="features",table="features.image_embeddings_v1"}}': 8,
        f'dataset_rows{{{head},split="train"}}': 5,
        f'dataset_rows{{{head},split="val"}}': 1,
        f'landing_records_total{{outcome="landed",{head},table="raw.images"}}': 20,
    }
    assert {name: found.get(name) for name in expected} == expected


def test_every_metric_of_the_schema_is_shown_by_somebody(lived: Path) -> None:
    platform.whole_day(MONDAY)
    platform.event("dbt_run", "START", TUESDAY)
    platform.train()
    platform.answer(1, datetime(1998, 6, 30, tzinfo=UTC))
    platform.clean_images({"truncated": 1})
    kpis = {
        "model_version": ["1"],
        "track": ["stable"],
        "request_day": [MONDAY],
        **{n: [0.5] for n in exporter.KPI_NAMES},
    }
    write_deltalake(lake.uri(exporter.KPIS), pa.table(kpis))
    (lived / "ledger" / platform.PRODUCT / "zzz.json").write_text("{")
    shown = {family.name for family in Exporter(online_rows=lambda _: (1, 1)).collect()}
    wanted = {name.removesuffix("_total") for name in dataset_metrics.known(dataset_metrics.datasets([CHURN]))} - {
        m.name.removesuffix("_total") for m in (*metrics.PREDICTOR, *metrics.JUDGE, *metrics.STREAM, *metrics.AIRFLOW)
    }
    assert shown == wanted


def test_a_day_that_is_not_in_force_after_its_deadline_is_late(lived: Path) -> None:
    platform.whole_day(MONDAY)
    found = Exporter()
    assert scraped(found)["features_customers_freshness_seconds"] == 86_400
    assert scraped(found)["features_customers_late_days"] == 0
    platform.set_clock(lived, datetime(1998, 7, 1, 0, 5, tzinfo=UTC))
    at_deadline = scraped(found)
    assert (at_deadline["features_customers_freshness_seconds"], at_deadline["features_customers_late_days"]) == (
        86_700,
        1,
    )


def test_nulls_are_counted_in_what_the_release_added(lived: Path) -> None:
    platform.whole_day(MONDAY)
    platform.land(TUESDAY)
    platform.publish(TUESDAY, 10, nulls=4)
    found = scraped(Exporter())
    assert found['features_customers_null_ratio{column="customer_id"}'] == 0.4
    assert found['raw_orders_null_ratio{column="order_id"}'] == 0.4
    assert found['features_customers_null_ratio{column="avg_ticket"}'] == 0


def test_a_gate_that_failed_shows_until_its_next_verdict(lived: Path) -> None:
    platform.whole_day(MONDAY)
    platform.refused(TUESDAY)
    found = Exporter()
    broken = scraped(found)
    assert broken['gate_passed{gate="record_contract",product="churn"}'] == 0
    assert broken['stage_state{product="churn",stage="ingest",state="gate_failed"}'] == 1
    assert broken['landing_records_total{outcome="quarantined",product="churn",table="raw.orders"}'] == 10
    platform.event(
        "ingest",
        "COMPLETE",
        TUESDAY,
        gates=platform.passed("record_contract"),
        landed_until="1998-07-01T00:00:00+00:00",
    )
    assert scraped(found)['gate_passed{gate="record_contract",product="churn"}'] == 1


@pytest.mark.parametrize(
    ("stage", "gate"),
    [
        ("dbt_run", "contract:analytics.orders"),
        ("features", "features_history"),
        ("features", "features_knowable"),
        ("leakage_check", "target_leakage"),
        ("deploy", "model_signature"),
    ],
)
def test_a_gate_on_code_is_a_gate_and_no_failed_stage_until_the_stage_is_done(
    stage: str, gate: str, lived: Path
) -> None:
    found = Exporter()
    platform.event(stage, "GATE_FAILED", TUESDAY, gates=platform.passed(gate, False), sets_aside=False, error="x")
    broken = scraped(found)
    assert broken[f'gate_passed{{gate="{gate}",product="churn"}}'] == 0
    assert broken[f'stage_state{{product="churn",stage="{stage}",state="gate_failed"}}'] == 1
    assert broken[f'stage_state{{product="churn",stage="{stage}",state="fail"}}'] == 0
    platform.event(stage, "COMPLETE", TUESDAY)
    mended = scraped(found)
    assert f'gate_passed{{gate="{gate}",product="churn"}}' not in mended, "it had nothing to judge any more"
    assert mended[f'gate_verdicts_total{{gate="{gate}",product="churn",verdict="failed"}}'] == 1


def test_an_empty_home_shows_the_clock_and_no_zeros(lived: Path) -> None:
    found = scraped(Exporter())
    assert set(found) == {
        "plumbline_clock_seconds",
        "plumbline_replay",
        "exporter_collect_seconds",
        "lineage_emit_failures_total",
    }


@pytest.mark.parametrize(
    "text", ["{", "[]", "{}", '{"at": "yesterday", "stage": "ingest", "state": "COMPLETE"}',
             '{"at": "1998-07-01T00:00:00+00:00", "stage": "ingest", "state": "BROKEN"}',
             '{"at": "1998-07-01T00:00:00+00:00", "stage": "release", "state": "COMPLETE", "gates": {"a": {}}}',
             '{"at": "1998-07-01T00:00:00+00:00", "stage": "release", "state": "COMPLETE", "gates": {"a": "passed"}}',
             '{"at": "1998-07-01T00:00:00+00:00", "stage": "release", "state": "COMPLETE", "gates": ["a"]}']
)  # fmt: skip
def test_a_corrupt_event_is_counted_and_all_others_are_told(lived: Path, text: str) -> None:
    platform.whole_day(MONDAY)
    found = Exporter()
    well = scraped(found)
    bad = lived / "ledger" / platform.PRODUCT / "99991231T000000000000-ingest-COMPLETE-0000.json"
    bad.write_text(text)
    broken = scraped(found)
    assert broken.pop('exporter_unreadable_total{what="ledger"}') == 1
    assert broken.keys() == well.keys()
    assert scraped(found)['exporter_unreadable_total{what="ledger"}'] == 2
    bad.unlink()
    assert scraped(found)['exporter_unreadable_total{what="ledger"}'] == 2, "what is gone is not counted on"


def test_a_release_that_names_a_vanished_version_leaves_that_table_out(lived: Path) -> None:
    platform.whole_day(MONDAY)
    shutil.rmtree(Path(lake.uri("features.customers")) / "_delta_log")
    found = scraped(Exporter())
    assert unreadable(found) == {"features.customers"}
    assert "features_customers_rows" not in found and found["analytics_orders_rows"] == 10
    assert found["features_customers_freshness_seconds"] == 86_400, "the release says it, not the table"


def test_a_broken_release_leaves_out_what_only_it_knows(lived: Path) -> None:
    platform.whole_day(MONDAY)
    (lived / "releases" / platform.PRODUCT / "000002.json").write_text('{"release_id": 2')
    found = scraped(Exporter())
    assert unreadable(found) == {"releases"}
    assert not [name for name in found if name.startswith(("release_id", "features_customers"))], (
        "never the lake's head"
    )
    assert found["raw_orders_freshness_seconds"] == 86_400


def test_a_broken_contract_leaves_out_its_dataset_alone(
    lived: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    platform.whole_day(MONDAY)
    copied = tmp_path / "contracts"
    shutil.copytree(settings().contracts, copied)
    found = Exporter()
    (copied / "shop.customers.odcs.yaml").write_text("apiVersion: [")
    monkeypatch.setenv("PLUMBLINE_CONTRACTS", str(copied))
    settings.cache_clear()
    samples = scraped(found)
    assert "contracts" in unreadable(samples)
    assert "raw_customers_rows" not in samples and samples["features_customers_rows"] == 10


def test_what_is_dated_in_the_future_is_not_believed(lived: Path) -> None:
    platform.whole_day(TUESDAY)
    platform.set_clock(lived, datetime(1998, 6, 1, tzinfo=UTC))
    found = scraped(Exporter())
    assert unreadable(found) == {"clock"}
    assert not [name for name in found if "freshness" in name or name.startswith("release_age")]
    assert found["features_customers_rows"] == 10


def test_scrapes_while_a_run_writes_never_see_a_part(lived: Path) -> None:
    found, ended = Exporter(), threading.Event()

    def run() -> None:
        for day in platform.days(date(1998, 6, 1), date(1998, 6, 8)):
            platform.whole_day(day)
        ended.set()

    writer = threading.Thread(target=run)
    writer.start()
    scrapes = 0
    while not ended.is_set() or not scrapes:
        assert unreadable(scraped(found)) == set()
        scrapes += 1
    writer.join()
    last = scraped(found)
    assert (last['release_id{product="churn"}'], last["features_customers_rows"]) == (8, 80)


def test_a_second_scrape_reads_only_what_is_new(lived: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for day in (MONDAY, TUESDAY):
        platform.whole_day(day)
    found = Exporter()
    scraped(found)
    read: list[str] = []
    whole, opened = objects.read_json, lake.open_table
    monkeypatch.setattr(objects, "read_json", lambda key: read.append(key.rpartition("/")[2]) or whole(key))
    monkeypatch.setattr(lake, "open_table", lambda *given: read.append(given[0]) or opened(*given))
    scraped(found)
    assert read == []
    platform.event("dbt_run", "START", TUESDAY)
    assert scraped(found)['stage_state{product="churn",stage="dbt_run",state="running"}'] == 1
    assert [name.partition("-")[2][:7] for name in read] == ["dbt_run"]


def test_failures_to_tell_the_lineage_server_are_counted(lived: Path) -> None:
    sending.failed(3, "no answer")
    assert scraped(Exporter())["lineage_emit_failures_total"] == 3


def test_a_name_outside_the_schema_and_other_labels_are_refused(home: Path) -> None:
    with pytest.raises(KeyError, match="rows_in_all"):
        Scrape([]).add("rows_in_all", 1)
    with pytest.raises(ValueError, match="has the labels"):
        Scrape([]).add("release_id", 1, table="raw.orders")


def test_over_http_it_answers_prometheus_and_says_where_the_predictor_is(lived: Path) -> None:
    platform.whole_day(MONDAY)
    with server.server("127.0.0.1", 0) as serving:
        thread = threading.Thread(target=serving.serve_forever, daemon=True)
        thread.start()
        address = f"http://127.0.0.1:{serving.server_port}"
        with urllib.request.urlopen(f"{address}/metrics") as answer:  # noqa: S310
            text = answer.read().decode()
        with urllib.request.urlopen(f"{address}/targets") as answer:  # noqa: S310
            assert json.load(answer) == []
        serving.shutdown()
    assert "# TYPE features_customers_rows gauge" in text
    assert "features_customers_rows 10.0" in text
    assert "process_resident_memory_bytes" in text
    assert releases.required(platform.PRODUCT).as_of + timedelta(days=1) == TUESDAY


@pytest.mark.servers
def test_each_predictor_that_runs_is_a_target_and_its_canary_too(home: Path) -> None:
    def listens(name: str) -> services.Launch:
        def command(port: int, token: str) -> list[str]:
            return [sys.executable, "-m", "http.server", str(port), "--bind", services.HOST, "--directory", str(home)]

        return services.Launch(name, command, lambda port, token: services.answers(f"http://{services.HOST}:{port}", 2))

    names = (CHURN.server, IMAGES.server, IMAGES.canary_server)
    try:
        ports = {name: services.ensure(listens(name)).port for name in names}
        assert [(target["labels"], target["targets"]) for target in server.targets()] == [
            ({"job": name}, [f"127.0.0.1:{ports[name]}"]) for name in names
        ]
        services.stop(IMAGES.server)
        assert [target["labels"]["job"] for target in server.targets()] == [CHURN.server, IMAGES.canary_server]
    finally:
        services.stop_all()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "127.0.0.1:9102"}, 200),
        ({"Host": "exporter:9102"}, 200),
        ({"Host": "exporter.churn-prod.svc.cluster.local:9102"}, 200),
        ({"Host": "rebound.example"}, 403),
        ({"Host": "exporter.churn-prod.svc.cluster.local.evil.example"}, 403),
        ({"Origin": "http://shop.example"}, 403),
        ({"Origin": "null"}, 403),
    ],
    ids=lambda value: " ".join(value.values()) if isinstance(value, dict) else str(value),
)
@pytest.mark.parametrize("path", ["/targets", "/v1/metrics"])
def test_web_pages_of_other_sites_may_not_ask(
    home: Path, monkeypatch: pytest.MonkeyPatch, path: str, headers: dict[str, str], status: int
) -> None:
    use_home(home, monkeypatch, serving_hosts=".churn-prod.svc.cluster.local")
    with server.server("127.0.0.1", 0) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        caller = http.client.HTTPConnection("127.0.0.1", serving.server_port, timeout=10)
        caller.request("POST" if path == "/v1/metrics" else "GET", path, headers=headers)
        answer = caller.getresponse()
        assert answer.status == status, answer.read()
        caller.close()
        serving.shutdown()


def test_a_port_that_is_taken_is_told(home: Path) -> None:
    with server.server("127.0.0.1", 0) as first:
        with pytest.raises(ServiceUnavailable, match=f"cannot listen on .*:{first.server_port}: Address"):
            server.server("127.0.0.1", first.server_port)


def test_rows_online_are_shown_beside_those_that_were_written_and_counted_once_a_minute(lived: Path) -> None:
    calls = []

    def counts(product: Product) -> tuple[int, int] | None:
        calls.append(product.name)
        return 8, 9

    exporter_with = Exporter((CHURN,), counts)
    samples = scraped(exporter_with)
    assert (samples['online_rows{product="churn"}'], samples['online_rows_written{product="churn"}']) == (8, 9)
    assert scraped(exporter_with)['online_rows{product="churn"}'] == 8
    assert calls == ["churn"]
    assert not [name for name in scraped(Exporter((CHURN,), lambda _: None)) if name.startswith("online_rows")]
