"""Airflow's own metrics: sent by Airflow's own code, taken by the exporter, shown by the schema's names."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import subprocess
import threading
import tracemalloc
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from observability import server
from plumbline.orchestration import scheduler
from plumbline.servers import services
from plumbline.servers.services import Service
from plumbline.settings import ENVIRONMENTS

SENDS = """
import datetime
from airflow._shared.observability.metrics.otel_logger import get_otel_logger, flush_otel_metrics
log = get_otel_logger()
for state in ("success", "success", "failed"):
    log.incr("ti.finish", tags={"dag_id": "retail_features", "task_id": "ingest", "state": state})
log.incr("ti.finish.retail_features.ingest.success")
log.incr("scheduler_heartbeat", 3)
log.gauge("dag_processing.import_errors", 2)
log.timing("dagrun.duration.success", datetime.timedelta(seconds=90), tags={"dag_id": "retail_features"})
log.incr("something.else")
flush_otel_metrics()
"""


@pytest.fixture
def address(home: Path) -> Iterator[str]:
    with server.server("127.0.0.1", 0) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{serving.server_port}"
        serving.shutdown()


def send(address: str) -> None:
    """Airflow's code sends, with the settings that `plumb airflow` gives it."""
    port = int(address.rpartition(":")[2])
    environment = scheduler.metrics_environment(Service("exporter", 0, port, "", {}))
    python = ENVIRONMENTS / "orchestration" / "bin" / "python"
    subprocess.run([python, "-c", SENDS], env=environment, check=True, timeout=120, capture_output=True)


def shown(address: str) -> dict[str, float]:
    with urllib.request.urlopen(f"{address}/metrics") as answer:  # noqa: S310
        lines = answer.read().decode().splitlines()
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if line.startswith("airflow_")}


def test_what_airflow_sends_is_shown_by_our_names_and_added_up_over_its_processes(address: str) -> None:
    send(address)
    run = 'dag="retail_features",state="success"'
    once = {
        'airflow_task_ends_total{dag="retail_features",state="success",task="ingest"}': 2,
        'airflow_task_ends_total{dag="retail_features",state="failed",task="ingest"}': 1,
        "airflow_scheduler_heartbeats_total": 3,
        "airflow_dag_import_errors": 2,
        f"airflow_dag_runs_total{{{run}}}": 1,
        f"airflow_dag_run_seconds_total{{{run}}}": 90,
    }
    found = {",".join(sorted_labels(name)): value for name, value in shown(address).items()}
    assert found == {",".join(sorted_labels(name)): value for name, value in once.items()}
    send(address)
    again = {",".join(sorted_labels(name)): value for name, value in shown(address).items()}
    assert again == {name: value if "errors" in name else 2 * value for name, value in found.items()}


def sorted_labels(sample: str) -> list[str]:
    name, _, labels = sample.partition("{")
    return [name, *sorted(labels.rstrip("}").split(","))]


@pytest.mark.parametrize(("body", "status"), [(b"\xff\xff", 400), (b"x" * (5 * 2**20), 413)])
def test_what_is_no_message_is_refused_and_the_exporter_stays_up(body: bytes, status: int, address: str) -> None:
    request = urllib.request.Request(f"{address}/v1/metrics", body, method="POST")  # noqa: S310
    try:
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request)  # noqa: S310
        assert refused.value.code == status
    except urllib.error.URLError:
        assert status == 413, "hung up before all of it was sent"
    assert shown(address) == {}


def test_airflow_sends_nothing_when_no_exporter_runs(home: Path) -> None:
    assert services.find("exporter") is None
    assert "AIRFLOW__METRICS__OTEL_ON" not in scheduler._environment()


def post(address: str, body: bytes, **headers: str) -> int:
    """The status of one message, sent with these headers as they are."""
    host, _, port = urllib.parse.urlsplit(address).netloc.partition(":")
    with contextlib.closing(http.client.HTTPConnection(host, int(port), timeout=20)) as connection:
        connection.putrequest("POST", "/v1/metrics")
        for name, value in {"Content_Length": str(len(body)), **headers}.items():
            connection.putheader(name.replace("_", "-"), value)
        connection.endheaders(body)
        return connection.getresponse().status


def test_a_message_that_unpacks_to_more_than_the_limit_is_refused_before_it_fills_memory(address: str) -> None:
    """Also in many parts, cut off, or packed twice over."""
    part = gzip.compress(bytes(2**20))
    bombs = [gzip.compress(bytes(64 * 2**20)), part * 64]
    tracemalloc.start()
    statuses = [post(address, bomb, Content_Encoding="gzip") for bomb in bombs]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert statuses == [413, 413]
    assert peak < 32 * 2**20, "64 MiB were never in memory"
    assert post(address, gzip.compress(b""), Content_Encoding="gzip") == 200
    assert post(address, gzip.compress(b"x" * 99)[:-9], Content_Encoding="gzip") == 400
    assert post(address, b"\x1f\x8b\x08 no gzip at all, but its head", Content_Encoding="gzip") == 400
    assert post(address, b"", Content_Encoding="deflate") == 415


@pytest.mark.parametrize(("length", "status"), [("abc", 400), ("-5", 400), ("1_0", 400), ("9" * 5000, 413)])
def test_a_length_that_is_no_number_is_a_bad_request(address: str, length: str, status: int) -> None:
    assert post(address, b"", Content_Length=length) == status


def test_a_path_that_is_none_of_the_exporters_is_not_found(address: str) -> None:
    for path in ("/", "/metrics/", "/metricsx", "/etc/passwd"):
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(address + path, timeout=10)  # noqa: S310 (loopback)
    assert urllib.request.urlopen(f"{address}/metrics", timeout=10).status == 200  # noqa: S310
