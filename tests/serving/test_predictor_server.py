"""The real thing: `plumb serve` over HTTP v1, v2 and gRPC, with a real Redis that dies and a real SIGTERM."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import grpc
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from plumbline.lake import tables as lake
from plumbline.lineage import sending
from plumbline.servers import online_store, services
from products.churn import CHURN
from serving import launch
from tests.serving.made_up_customers import EXPIRED, FULL, KNOWN, RELEASE, SPARSE, UNKNOWN, eventually, mark_online
from tests.serving.predictor_asker import V1, V2, Answer, Asker, outputs, tensor

pytestmark = pytest.mark.usefixtures("_home_settings")


def test_all_protocols_agree(predictor: Asker) -> None:
    one = predictor.v1({"customer_id": FULL}, SPARSE, KNOWN[0])
    assert one.status == 200
    rows = one.body.pop("predictions")
    assert one.body == {
        "model_name": "churn-predictor",
        "model_version": "1",
        "data_version": "delta:features.customers@v=0",
        "feature_service": "churn_v1",
        "clock": "1998-07-01T00:00:00+00:00",
        "replay": True,
    }
    two = predictor.v2(FULL, SPARSE, KNOWN[0]).body
    by_rpc = predictor.grpc(FULL, SPARSE, KNOWN[0])
    assert two["parameters"].items() >= {"model_version": "1", "feature_service": "churn_v1", "replay": True}.items()
    assert two["model_version"] == by_rpc.model_version == "1"
    columns = outputs(two)
    assert [row["churn_probability"] for row in rows] == columns["churn_probability"]
    assert columns["churn_probability"] == list(by_rpc.outputs[0].contents.fp64_contents)
    assert [row["features_age_seconds"] for row in rows] == columns["features_age_seconds"] == [86400.0] * 3
    assert [row["release_id"] for row in rows] == columns["release_id"] == [RELEASE] * 3
    assert [row["missing"] for row in rows] == [[], ["avg_ticket_30d", "days_between_orders"], []]
    assert columns["missing"] == ["", "avg_ticket_30d,days_between_orders", ""]
    assert [row["view_age_seconds"] for row in rows] == [{"customer_features": 86400.0}] * 3
    assert [json.loads(told) for told in columns["view_age_seconds"]] == [{"customer_features": 86400.0}] * 3
    assert [o.name for o in by_rpc.outputs] == list(columns)


def test_the_score_is_the_boosters_own(predictor: Asker) -> None:
    import pandas as pd
    import xgboost

    from serving.churn.scorer import Scorer

    scorer = Scorer("champion")
    values = [row.values for row in scorer.features.read([FULL, SPARSE])]
    rows = pd.DataFrame(values)[scorer.inputs].astype("float64")
    expected = [float(p) for p in scorer.booster.predict(xgboost.DMatrix(rows))]
    assert outputs(predictor.v2(FULL, SPARSE).body)["churn_probability"] == expected


def test_a_column_a_chosen_output_and_binary_data(predictor: Asker) -> None:
    column = predictor.http("POST", V2, json.dumps({"inputs": [tensor([[FULL], [SPARSE]], [2, 1])], "id": "col"}))
    assert outputs(column.body)["release_id"] == [RELEASE] * 2
    chosen = predictor.v2(FULL, outputs=[{"name": "release_id"}], id="chosen")
    assert outputs(chosen.body) == {"release_id": [RELEASE]}
    head = tensor([], [1], parameters={"binary_data_size": 8})
    del head["data"]
    raw = json.dumps({"inputs": [head], "id": "raw"}).encode()
    binary = predictor.http(
        "POST",
        V2,
        raw + FULL.to_bytes(8, "little"),
        content_type="application/octet-stream",
        inference_header_content_length=str(len(raw)),
    )
    scores = dict.fromkeys(["col", "raw"], outputs(binary.body)["churn_probability"][0])
    predictor.scored |= {(name, FULL): score for name, score in scores.items()}
    predictor.scored["col", SPARSE] = outputs(column.body)["churn_probability"][1]
    predictor.scored["chosen", FULL] = scores["raw"]
    assert outputs(column.body)["churn_probability"][0] == scores["raw"]


def test_a_body_is_json_whatever_its_content_type(predictor: Asker) -> None:
    assert predictor.v1(FULL, content_type="application/x-www-form-urlencoded").status == 200


def test_a_request_keeps_its_id(predictor: Asker) -> None:
    assert predictor.v1(FULL, x_request_id="mine").headers["x-request-id"] == "mine"
    two = predictor.v2(FULL, id="mine too")
    assert two.body["id"] == two.headers["x-request-id"] == "mine too"
    refused = predictor.v1(UNKNOWN, x_request_id="mine still")
    assert refused.headers["x-request-id"] == refused.body["request_id"] == "mine still"
    assert len(predictor.v1(UNKNOWN).body["request_id"]) == 36


INPUT = tensor([FULL])


@pytest.mark.parametrize(
    ("path", "body", "status", "told"),
    [
        (V1, "{", 400, "cannot be decoded"),
        (V1, "", 400, "cannot be decoded"),
        (V1, "[" * 100_000, 400, "cannot be decoded"),
        (V1, '{"instances": []}', 400, "found none"),
        (V1, '{"instances": [1.5]}', 400, "found a float"),
        (V1, '{"instances": [NaN]}', 400, "found a float"),
        (V1, f'{{"instances": {[1] * 1001}}}', 413, "found 1001"),
        (V1, " " * (1 << 20) + "{}", 413, "at most 1048576 bytes"),
        ("/v1/models/nobody:predict", "{}", 404, "nobody"),
        ("/v1/models/churn-predictor:explain", '{"instances": [1]}', 501, ""),
        ("/v9", "{}", 404, "Not Found"),
        ("/v2/repository/models/churn-predictor/unload", "{}", 403, "deployment"),
        (V2, "{", 400, ""),
        (V2, "[]", 400, "expected one input"),
        (V2, "{}", 400, "inputs: Field required"),
        (V2, '{"inputs": []}', 400, "found 0 inputs"),
        (V2, json.dumps({"inputs": [{**INPUT, "name": "id"}]}), 400, "expected the name 'customer_id', found 'id'"),
        (V2, json.dumps({"inputs": [{**INPUT, "datatype": "FP64"}]}), 400, "expected the datatype INT64, found 'FP64'"),
        (V2, json.dumps({"inputs": [{**INPUT, "datatype": "FP16"}]}), 400, "FP16"),
        (V2, json.dumps({"inputs": [{**INPUT, "shape": [2]}]}), 400, "expects 2 ids, found 1"),
        (V2, json.dumps({"inputs": [{**INPUT, "data": [True]}]}), 400, "found a boolean"),
        (V2, json.dumps({"inputs": [{**INPUT, "data": ["1"]}]}), 400, "found a string"),
        (V2, json.dumps({"inputs": [{**INPUT, "data": [2**64]}]}), 400, "found 18446744073709551616"),
        (V2, json.dumps({"inputs": [INPUT], "id": "a\r\nb: c"}), 400, "printable ASCII"),
        (V2, json.dumps({"inputs": [INPUT], "outputs": [{"name": "x"}]}), 400, "found ['x']"),
    ],
)
def test_what_is_wrong_is_said_in_one_shape(predictor: Asker, path: str, body: str, status: int, told: str) -> None:
    answer = predictor.http("POST", path, body)
    assert answer.status == status, answer.body
    assert set(answer.body) == {"error", "customers", "request_id"}
    assert told in answer.body["error"]
    assert "Traceback" not in answer.body["error"]


def test_a_cloud_event_is_refused(predictor: Asker) -> None:
    event = {"ce_id": "1", "ce_source": "x", "ce_type": "y", "ce_specversion": "1.0"}
    assert predictor.http("POST", V1, b"{}", **event).status == 415


PARTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6) | st.just(INPUT),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["inputs", "instances", "name", "shape", "data", "id", "datatype"]), inner)
    ),
    max_leaves=10,
)


@examples(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from([V1, V2]),
    st.binary(max_size=60)
    | PARTS.map(lambda v: json.dumps(v).encode())
    | PARTS.map(lambda v: json.dumps({"inputs": v}).encode())
    | PARTS.map(lambda v: json.dumps({"inputs": [{**INPUT, "data": v}]}).encode()),
    st.sampled_from(["application/json", "application/octet-stream", "text/plain"]),
    st.sampled_from([None, "0", "7", "-3", "x"]),
)
def test_no_body_is_answered_with_500(predictor: Asker, path: str, body: bytes, kind: str, length: str | None) -> None:
    more = {} if length is None else {"inference_header_content_length": length}
    answer = predictor.http("POST", path, body, content_type=kind, x_request_id="fuzz", **more)
    assert answer.status in (200, 400, 404, 413) or (answer.status, kind) == (415, "text/plain")
    if answer.status != 200:
        assert set(answer.body) == {"error", "customers", "request_id"}


def test_unknown_and_expired_customers_are_named_on_every_protocol(predictor: Asker) -> None:
    for customer, status, code in ((UNKNOWN, 404, "NOT_FOUND"), (EXPIRED, 503, "UNAVAILABLE")):
        for answer in (predictor.v1(FULL, customer), predictor.v2(FULL, customer)):
            assert answer.status == status
            assert set(answer.body["customers"]) == {str(customer)}
            assert answer.headers.get("retry-after") == (None if status == 404 else "60")
        with pytest.raises(grpc.RpcError) as refused:
            predictor.grpc(FULL, customer)
        assert refused.value.code().name == code
        trailing = dict(refused.value.trailing_metadata())
        assert set(json.loads(trailing["customers"])) == {str(customer)}


def test_a_wrong_grpc_request_is_an_invalid_argument(predictor: Asker) -> None:
    for ask in (lambda: predictor.grpc(), lambda: predictor.grpc(1, name="id"), lambda: predictor.grpc(1, shape=[2])):
        with pytest.raises(grpc.RpcError) as refused:
            ask()
        assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert "found" in refused.value.details()


def test_a_redis_without_a_release_is_503_for_whoever_it_does_not_know(predictor: Asker) -> None:
    online_store.client().delete(CHURN.online_mark)
    answer = predictor.v1(UNKNOWN)
    mark_online()
    assert (answer.status, answer.headers["retry-after"]) == (503, "30")
    assert "nothing is materialized" in answer.body["error"]


def test_redis_dies_and_comes_back_without_a_restart(predictor: Asker) -> None:
    redis = services.find("redis")
    assert redis is not None
    os.kill(redis.pid, signal.SIGKILL)
    gone = predictor.v1(FULL)
    assert (gone.status, gone.headers["retry-after"]) == (503, "1")
    assert "the private Redis is not running" in gone.body["error"], "it was looked for, not waited for"
    with pytest.raises(grpc.RpcError) as refused:
        predictor.grpc(FULL)
    assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
    eventually(lambda: predictor.http("GET", launch.ready(CHURN)).status == 503)
    assert predictor.http("GET", "/v2/health/live").status == 200
    online_store.url()
    eventually(lambda: predictor.v1(FULL).status == 200)
    assert predictor.grpc(FULL).model_version == "1"
    eventually(lambda: predictor.http("GET", launch.ready(CHURN)).status == 200)


def test_answers_are_counted_by_status_and_timed(predictor: Asker) -> None:
    for protocol in ("v1", "v2", "grpc"):
        for status in ("200", "400", "404", "503"):
            assert predictor.metric(f'predictions_total{{product="churn",protocol="{protocol}",status="{status}"}}') > 0
        assert predictor.metric(f'predictions_total{{product="churn",protocol="{protocol}",status="500"}}') == 0
    for reason, status in (("malformed", "400"), ("unknown", "404"), ("unfit", "503"), ("store_away", "503")):
        refused = f'predictions_refused_total{{product="churn",reason="{reason}",status="{status}"}}'
        assert predictor.metric(refused) > 0, reason
    by_id = '{input="customer_id",model_version="1",product="churn",track="stable"}'
    assert predictor.metric(f"prediction_latency_ms_count{by_id}") > 0
    labels = '{model_version="1",product="churn",track="stable"}'
    before = [predictor.metric(f"pct_missing_features_{part}{labels}") for part in ("sum", "count")]
    predictor.v1(FULL, SPARSE)
    after = [predictor.metric(f"pct_missing_features_{part}{labels}") for part in ("sum", "count")]
    assert after[0] - before[0] == pytest.approx(100 * 2 / 28)
    assert after[1] - before[1] == 1
    assert predictor.metric('predictions_in_flight{product="churn"}') == 0


def test_the_running_predictor_is_found_not_started_again(predictor: Asker) -> None:
    assert launch.ensure(CHURN) == predictor.service


def test_sigterm_answers_what_is_under_way_and_logs_every_prediction(predictor: Asker) -> None:
    """Redis is held until SIGTERM is out, so that a request is surely under way; it has a second, as set."""
    redis = services.find("redis")
    assert redis is not None
    answers: list[Answer] = []
    asking = threading.Thread(target=lambda: answers.append(predictor.v1(*KNOWN)))
    os.kill(redis.pid, signal.SIGSTOP)
    try:
        asking.start()
        eventually(lambda: predictor.metric('predictions_in_flight{product="churn"}') == 1 or answers)
        assert not answers, "Redis is held, so nothing can have been answered"
        os.kill(predictor.service.pid, signal.SIGTERM)
        begun = time.monotonic()
    finally:
        os.kill(redis.pid, signal.SIGCONT)
    asking.join(10)
    assert [answer.status for answer in answers] == [200]
    _, status = os.waitpid(predictor.service.pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert time.monotonic() - begun < 20, "the drain ends by itself, long before a pod is killed (45 s)"

    logged = lake.open_table("serving.predictions").to_pyarrow_table().to_pylist()
    told = {(row["request_id"], row["customer_id"]): row["score"] for row in logged if row["request_id"][:4] != "fuzz"}
    assert told == predictor.scored
    one = next(row for row in logged if row["customer_id"] == SPARSE)
    assert (one["release_id"], one["model_version"], one["track"]) == (RELEASE, "1", "stable")
    assert one["features_age_seconds"] == 86400.0
    features = json.loads(one["features"])
    assert [name for name, value in features.items() if value is None] == ["avg_ticket_30d", "days_between_orders"]
    assert lake.version("serving.predictions") < 30
    began, ended = [e for e in sending.lines(sending.path()) if e["job"]["name"] == "serving.serve"][-2:]
    assert (began["eventType"], ended["eventType"]) == ("START", "COMPLETE")
    assert began["run"]["runId"] == ended["run"]["runId"]
    for event in (began, ended):
        ports = [(p["name"], p["facets"].get("version", {}).get("datasetVersion")) for p in event["inputs"]]
        assert ports == [
            ("models.churn_xgb", "1"),
            ("models.churn_xgb.champion", "1"),
            ("online.customer_features", str(RELEASE)),
        ]
        assert [port["name"] for port in event["outputs"]] == ["endpoints.churn-predictor", "serving.predictions"]


def test_a_predictor_without_its_model_refuses(serving_home: Path) -> None:
    from serving.churn.log import append
    from serving.churn.predictor import ChurnPredictor
    from serving.errors import Refused
    from serving.outcome_log import OutcomeLog

    log = OutcomeLog(CHURN, append)
    unloaded = ChurnPredictor("champion", log)
    assert not unloaded.ready
    with pytest.raises(Refused, match="has not loaded its model") as refused:
        asyncio.run(unloaded.predict({"instances": [FULL]}))
    assert refused.value.status == 503
    unloaded.close()
    log.close()


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["--model", "nobody"], 1, "churn_xgb has no 'nobody'"),
        (["--port", "{taken}"], 4, "give another --port"),
        (["--grpc-port", "{taken}"], 4, "give another --grpc-port"),
    ],
)
def test_a_server_that_cannot_start_says_why(serving_home: Path, arguments: list[str], code: int, told: str) -> None:
    redis = services.find("redis")
    assert redis is not None
    given = [part.format(taken=redis.port) for part in arguments]
    command = [sys.executable, "-m", "plumb", "serve", *given]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == code
    assert told.format(taken=redis.port) in ended.stderr
    assert "Traceback" not in ended.stderr
