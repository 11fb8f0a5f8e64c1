"""One broken row or key in Redis costs its customer alone: no other customer, no other request, no readiness."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from feature_repo import feast_internals, online_keys
from feature_repo import store as feature_store
from plumbline.servers import online_store, services
from products.churn import CHURN
from serving import launch
from serving.predictor import PROBE_SECONDS
from tests.serving.made_up_customers import FULL, KNOWN, SPARSE, UNKNOWN, eventually, mark_online, put_online
from tests.serving.predictor_asker import Asker

pytestmark = pytest.mark.usefixtures("_home_settings")

BROKEN = KNOWN[10]
UNREADY = ("/v2/health/ready", launch.ready(CHURN), "/v1/models/churn-predictor")


@pytest.fixture
def redis(serving_home: Path) -> Iterator[Any]:
    client = online_store.client()
    yield client
    client.flushall()
    put_online()


def key(customer: int = BROKEN) -> bytes:
    return bytes(online_keys.keys(feature_store.open_store(CHURN), CHURN, [customer])[0])


def fields(*names: str) -> list[bytes]:
    view = feature_store.open_store(CHURN).get_feature_view(CHURN.view)
    return [bytes(name) for name in feast_internals.row_fields(view, list(names))][1:]


def value(**of_kind: Any) -> bytes:
    from feast.protos.feast.types.Value_pb2 import Value

    return Value(**of_kind).SerializeToString()


def set_field(client: Any, name: str, stored: bytes) -> None:
    client.hset(key(), fields(name)[0], stored)


def half_of_row(client: Any) -> None:
    stamp, release = b"_ts:customer_features", fields("release_id")[0]
    client.hdel(key(), *(name for name in client.hkeys(key()) if name not in (stamp, release)))


BREAKS = {
    "bytes that are no value": lambda c: set_field(c, "tenure_months", b"\xff\xff\xff\xff"),
    "bytes of an unknown field": lambda c: set_field(c, "tenure_months", b"\x98\x3f\x01"),
    "a value of another type": lambda c: set_field(c, "tenure_months", value(string_val="17")),
    "an infinite value": lambda c: set_field(c, "avg_ticket", value(float_val=float("inf"))),
    "a time that is none": lambda c: c.hset(key(), b"_ts:customer_features", b"\xff\xff\xff"),
    "a time out of range": lambda c: c.hset(
        key(), b"_ts:customer_features", b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\x7f"
    ),
    "no time": lambda c: c.hdel(key(), b"_ts:customer_features"),
    "one field less": lambda c: c.hdel(key(), *fields("tenure_months")),
    "no feature at all": half_of_row,
    "no release": lambda c: set_field(c, "release_id", b""),
    "a string for a hash": lambda c: (c.delete(key()), c.set(key(), b"x")),
    "a list for a hash": lambda c: (c.delete(key()), c.rpush(key(), b"x")),
}


@pytest.mark.parametrize("damage", BREAKS)
def test_a_broken_row_is_503_for_its_customer_alone(predictor: Asker, redis: Any, damage: str) -> None:
    BREAKS[damage](redis)
    for answer in (predictor.v1(BROKEN), predictor.v2(FULL, BROKEN), predictor.v1(FULL, BROKEN, SPARSE)):
        assert (answer.status, set(answer.body["customers"])) == (503, {str(BROKEN)}), answer.body
        assert "1970" not in answer.body["error"]
        assert predictor.v1(FULL, SPARSE).status == 200, "the store is not closed for others"


def test_half_a_row_names_what_it_lacks(predictor: Asker, redis: Any) -> None:
    redis.hdel(key(), *fields("tenure_months", "avg_ticket"))
    assert "customer_features lacks tenure_months, avg_ticket" in predictor.v1(BROKEN).body["error"]


def test_a_stored_nan_counts_as_missing_and_the_log_stays_json(predictor: Asker, redis: Any) -> None:
    set_field(redis, "avg_ticket", value(float_val=float("nan")))
    answer = predictor.v1(BROKEN)
    assert answer.status == 200
    assert answer.body["predictions"][0]["missing"] == ["avg_ticket"]
    json.dumps(answer.body, allow_nan=False)


def broken_everywhere(client: Any) -> None:
    """Every customer's row but one, keys of another type among them, and strangers' keys that end like ours."""
    for number, customer in enumerate([*KNOWN[1:], SPARSE]):
        if number % 2:
            client.delete(key(customer))
            client.set(key(customer), b"x")
        else:
            client.hset(key(customer), fields("tenure_months")[0], b"\xff\xff\xff\xff")
    for stranger in (b"churn", b"jobs:churn", b"\xff" * 20 + b"churn"):
        client.set(stranger, b"x")


def test_broken_rows_and_strangers_keys_take_no_predictor_out_of_service(predictor: Asker, redis: Any) -> None:
    broken_everywhere(redis)
    begun = time.monotonic()
    eventually(lambda: time.monotonic() > begun + PROBE_SECONDS)  # what a probe said before holds no more
    assert [predictor.http("GET", path).status for path in UNREADY] == [200, 200, 200]
    assert predictor.v1(FULL).status == 200
    assert "Traceback" not in services.log_file("predictor").read_text()


def test_a_store_that_does_not_answer_is_not_ready(predictor: Asker, redis: Any) -> None:
    server = services.find("redis")
    assert server is not None
    os.kill(server.pid, signal.SIGSTOP)
    try:
        eventually(lambda: {predictor.http("GET", path).status for path in UNREADY} == {503})
        assert predictor.http("GET", "/v2/health/live").status == 200
    finally:
        os.kill(server.pid, signal.SIGCONT)
    eventually(lambda: {predictor.http("GET", path).status for path in UNREADY} == {200})


def test_a_known_customer_whom_redis_lost_is_503_and_a_stranger_404(predictor: Asker, redis: Any) -> None:
    redis.delete(key())
    lost = predictor.v1(FULL, BROKEN)
    assert (lost.status, lost.headers["retry-after"], set(lost.body["customers"])) == (503, "60", {str(BROKEN)})
    assert "lost" in lost.body["error"]
    unknown = predictor.v1(UNKNOWN)
    assert (unknown.status, set(unknown.body["customers"])) == (404, {str(UNKNOWN)})
    assert predictor.v1(FULL).status == 200


def test_a_mark_that_is_gone_or_no_mark_calls_nobody_unknown(predictor: Asker, redis: Any) -> None:
    redis.delete(CHURN.online_mark)
    assert predictor.v1(UNKNOWN).status == 503
    redis.set(CHURN.online_mark, b"x")
    assert predictor.v1(UNKNOWN).status == 503
    redis.delete(CHURN.online_mark)
    mark_online()
    assert predictor.v1(UNKNOWN).status == 404


def test_a_redis_that_evicts_is_named_at_the_start(serving_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from serving.server import _warn_of_eviction

    client = online_store.client()
    _warn_of_eviction()
    assert "evicts" not in capsys.readouterr().err
    client.config_set("maxmemory-policy", "allkeys-lru")
    try:
        _warn_of_eviction()
    finally:
        client.config_set("maxmemory-policy", "noeviction")
    assert "maxmemory-policy allkeys-lru" in capsys.readouterr().err
