"""Callers that are wrong, slow, large, gone or hostile, against the real predictor: they cost nobody else anything."""

from __future__ import annotations

import gzip
import http.client
import json
import os
import signal
import socket
import struct
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from plumbline.servers import services
from products.churn import CHURN
from serving import launch
from tests.serving.made_up_customers import FULL, KNOWN, eventually
from tests.serving.predictor_asker import V1, V2, Asker, outputs, tensor

VERSION_1 = V2.replace("/infer", "/versions/1/infer")
pytestmark = pytest.mark.usefixtures("_home_settings")


@pytest.fixture(autouse=True)
def _no_traceback(predictor: Asker) -> Iterator[None]:
    log = services.log_file("predictor")
    before = log.read_text().count("Traceback")
    yield
    assert log.read_text().count("Traceback") == before


def connect(predictor: Asker) -> socket.socket:
    return socket.create_connection(("127.0.0.1", predictor.service.port), timeout=15)


def raw(predictor: Asker, request: bytes) -> tuple[int, dict[str, Any]]:
    """The status and JSON body that raw bytes are answered with."""
    with connect(predictor) as connection:
        try:
            connection.sendall(request)
        except OSError:
            pass  # refused while it was sent
        response = http.client.HTTPResponse(connection)
        response.begin()
        return response.status, json.loads(response.read())


def counted(predictor: Asker, status: str, protocol: str = "v1") -> float:
    return predictor.metric(f'predictions_total{{product="churn",protocol="{protocol}",status="{status}"}}')


def in_one_shape(body: Any) -> bool:
    return set(body) == {"error", "customers", "request_id"}


@pytest.mark.parametrize(("protocol", "path"), [("v1", V1), ("v2", V2), ("v2", VERSION_1)])
def test_who_goes_away_is_499_and_no_error_of_ours(predictor: Asker, protocol: str, path: str) -> None:
    gone, failed = counted(predictor, "499", protocol), counted(predictor, "500", protocol)
    for _ in range(5):
        with connect(predictor) as connection:
            connection.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{{".encode())
    eventually(lambda: counted(predictor, "499", protocol) == gone + 5)
    assert counted(predictor, "500", protocol) == failed


def grpc_tensors(*customers: int) -> list[Any]:
    from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb

    contents, shape = pb.InferTensorContents(int64_contents=customers), [len(customers)]
    one = pb.ModelInferRequest.InferInputTensor(name="customer_id", datatype="INT64", shape=shape, contents=contents)
    return [one]


def test_a_grpc_caller_who_cancels_is_499(predictor: Asker) -> None:
    from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb
    from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import GRPCInferenceServiceStub

    request = pb.ModelInferRequest(model_name="churn-predictor", inputs=grpc_tensors(*KNOWN))

    def cancelled() -> bool:
        call = GRPCInferenceServiceStub(predictor.channel).ModelInfer.future(request)
        eventually(lambda: predictor.metric('predictions_in_flight{product="churn"}') >= 1 or call.done())
        call.cancel()
        return counted(predictor, "499", "grpc") > 0

    eventually(cancelled, 30)
    assert counted(predictor, "500", "grpc") == 0


def test_the_version_that_is_served_is_taken_and_any_other_is_404(predictor: Asker) -> None:
    body = json.dumps({"inputs": [tensor([FULL])]})
    base = "/v2/models/churn-predictor"
    assert predictor.http("GET", base).body["versions"] == ["1"]
    for method, tail in (("POST", "/infer"), ("GET", ""), ("GET", "/ready")):
        for version, status in (("1", 200), ("999", 404), ("x", 404), ("%0A", 404)):
            for path in (f"{base}/versions/{version}{tail}", f"{base}{tail}?model_version={version}"):
                answer = predictor.http(method, path, body if method == "POST" else None)
                assert answer.status == status, (path, answer.body)
                assert status == 200 or in_one_shape(answer.body)
    assert counted(predictor, "501", "v2") == 0


def test_grpc_takes_the_version_that_is_served_and_no_other(predictor: Asker) -> None:
    import grpc
    from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb
    from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import GRPCInferenceServiceStub

    stub, name = GRPCInferenceServiceStub(predictor.channel), "churn-predictor"
    wanted = [pb.ModelInferRequest.InferRequestedOutputTensor(name="churn_probability")]

    def calls(version: str) -> list[Any]:
        infer = pb.ModelInferRequest(model_name=name, model_version=version, inputs=grpc_tensors(FULL), outputs=wanted)
        return [
            lambda: stub.ModelInfer(infer, timeout=10),
            lambda: stub.ModelReady(pb.ModelReadyRequest(name=name, version=version), timeout=10),
            lambda: stub.ModelMetadata(pb.ModelMetadataRequest(name=name, version=version), timeout=10),
        ]

    for version in ("", "1"):
        answer, ready, about = [call() for call in calls(version)]
        assert [output.name for output in answer.outputs] == ["churn_probability"], "the others were not asked for"
        assert (ready.ready, list(about.versions)) == (True, ["1"])
    for version in ("999", "../x", "1\nFAKE"):
        for call in calls(version):
            with pytest.raises(grpc.RpcError) as refused:
                call()
            assert refused.value.code() == grpc.StatusCode.NOT_FOUND
    with pytest.raises(grpc.RpcError):
        stub.ModelReady(pb.ModelReadyRequest(name="x\nFAKE LOG LINE"), timeout=10)
    assert "FAKE" not in services.log_file("predictor").read_text()
    metadata = stub.ServerMetadata(pb.ServerMetadataRequest(), timeout=10)
    assert list(metadata.extensions) == ["binary_tensor_data"]


@pytest.mark.parametrize(
    ("message", "code", "status"),
    [(b"\xff" * 9, "INVALID_ARGUMENT", "400"), (b"x" * (1 << 21), "RESOURCE_EXHAUSTED", "413")],
)
def test_a_grpc_message_that_cannot_be_read_is_refused_and_counted(
    predictor: Asker, message: bytes, code: str, status: str
) -> None:
    import grpc

    before = counted(predictor, status, "grpc")
    call = predictor.channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
    with pytest.raises(grpc.RpcError) as refused:
        call(message, timeout=10)
    assert refused.value.code().name == code
    assert "Error" not in refused.value.details()
    assert counted(predictor, status, "grpc") == before + 1


def test_labels_of_a_metric_come_from_closed_lists(predictor: Asker) -> None:
    paths = [
        "/zz/infer",
        "/..:predict",
        "/%22%0A/infer",
        "/v1/models/x:predict",
        "/v2/models/nobody/infer",
        "/v1x/y/infer",
    ]
    for path in paths:
        for method in ("POST", "GET", "PUT"):
            assert predictor.http(method, path, b"{}").status in (404, 405)
    text = predictor.http("GET", "/metrics").body.decode()
    rows = [line for line in text.splitlines() if line.startswith("predictions_total{")]
    assert {line.split('protocol="')[1].split('"')[0] for line in rows} <= {"v1", "v2", "grpc"}
    assert counted(predictor, "405") == counted(predictor, "405", "v2") == 0


@pytest.mark.parametrize(
    "head",
    [
        b"".join(b"h%d: v\r\n" % number for number in range(100_000)),
        b"h: " + b"v" * (5 << 20) + b"\r\n",
        b"h" * (5 << 20) + b": v\r\n",
        b"".join(b"h%d: %s\r\n" % (number, b"v" * 1000) for number in range(90)),
    ],
    ids=["many", "one large", "a large name", "large together"],
)
def test_headers_without_end_are_431_and_hold_up_nobody(predictor: Asker, head: bytes) -> None:
    slowest, stop = [0.0], threading.Event()

    def ask() -> None:
        while not stop.is_set():
            begun = time.monotonic()
            assert predictor.http("GET", "/v2/health/live").status == 200
            slowest[0] = max(slowest[0], time.monotonic() - begun)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        status, body = raw(predictor, b"POST " + V1.encode() + b" HTTP/1.1\r\nHost: x\r\n" + head + b"\r\n")
    finally:
        stop.set()
        asking.join()
    assert status == 431 and in_one_shape(body)
    assert slowest[0] < 2


def test_trailers_are_headers_too(predictor: Asker) -> None:
    body = json.dumps({"instances": [FULL]}).encode()
    head = f"POST {V1} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{len(body):x}\r\n".encode()
    trailers = b"".join(b"t%d: v\r\n" % number for number in range(5_000))
    status, _ = raw(predictor, head + body + b"\r\n0\r\n" + trailers + b"\r\n")
    assert status == 431


def test_what_is_no_http_has_the_one_shape_too(predictor: Asker) -> None:
    for request in (
        b"NOT HTTP\r\n\r\n",
        b"\x16\x03\x01\x02\x00",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    ):
        status, body = raw(predictor, request)
        assert status == 400 and in_one_shape(body)


def test_idle_connections_keep_nobody_out(predictor: Asker) -> None:
    idle = []
    try:
        for _ in range(700):
            idle.append(connect(predictor))
        begun = time.monotonic()
        assert predictor.v1(FULL).status == 200
        assert predictor.http("GET", launch.ready(CHURN)).status == 200
        assert time.monotonic() - begun < 5
        deadline = time.monotonic() + 20
        idle[-1].settimeout(20)
        assert idle[-1].recv(1) == b"", "one that says nothing is closed"
        assert time.monotonic() < deadline
    finally:
        for connection in idle:
            connection.close()


def test_a_connection_that_would_be_a_websocket_stays_within_the_bounds(predictor: Asker) -> None:
    """uvicorn gave it away, uncounted and without an end: a thousand of them would have taken all files."""
    upgrade = "Host: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    status, body = raw(predictor, f"POST {V1} HTTP/1.1\r\n{upgrade}{key}Content-Length: 2\r\n\r\n{{}}".encode())
    assert status == 400 and in_one_shape(body)
    assert raw(predictor, f"GET {launch.ready(CHURN)} HTTP/1.1\r\n{upgrade}{key}\r\n".encode())[0] == 200


def test_a_request_that_does_not_arrive_ends(predictor: Asker) -> None:
    gone = counted(predictor, "499")
    with connect(predictor) as head, connect(predictor) as body:
        head.settimeout(20)
        body.settimeout(20)
        head.sendall(b"GET / HTTP/1.1\r\nHo")
        body.sendall(f"POST {V1} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{{".encode())
        assert head.recv(100).startswith(b"HTTP/1.1 408 ")
        assert body.recv(100) == b""
    eventually(lambda: counted(predictor, "499") == gone + 1)


def test_customers_are_admitted_not_requests_and_readiness_does_not_wait(predictor: Asker) -> None:
    many = [KNOWN[number % len(KNOWN)] for number in range(1000)]
    answers: list[Any] = []
    asking = [threading.Thread(target=lambda: answers.append(predictor.v1(*many))) for _ in range(40)]
    for thread in asking:
        thread.start()
    slowest = 0.0
    while any(thread.is_alive() for thread in asking):
        begun = time.monotonic()
        assert predictor.http("GET", launch.ready(CHURN)).status == 200
        slowest = max(slowest, time.monotonic() - begun)
    assert slowest < 3, "the probe's timeout in the pods"
    statuses = [answer.status for answer in answers]
    assert set(statuses) == {200, 503} and statuses.count(200) >= 1
    refused = next(answer for answer in answers if answer.status == 503)
    assert refused.headers["retry-after"] == "1"
    assert predictor.v1(*many).status == 200, "one of the largest alone is always taken"


def binary(predictor: Asker, head: Any, tail: bytes, length: str | None = None) -> Any:
    text = json.dumps(head).encode()
    return predictor.http(
        "POST",
        V2,
        text + tail,
        content_type="application/octet-stream",
        inference_header_content_length=length or str(len(text)),
    )


ID = FULL.to_bytes(8, "little")


def of_bytes(shape: Any = None, size: Any = 8, **more: Any) -> dict[str, Any]:
    head = {"name": "customer_id", "datatype": "INT64", "shape": [1] if shape is None else shape}
    return {"inputs": [{**head, "parameters": {"binary_data_size": size}}], **more}


@pytest.mark.parametrize(
    ("head", "tail", "length"),
    [
        (of_bytes([-1]), ID, None),
        (of_bytes(parameters="x"), ID, None),
        (of_bytes(parameters={"binary_data_output": "x"}), ID, None),
        (of_bytes(outputs=[{"name": "release_id", "parameters": {"binary_data": 1}}]), ID, None),
        (of_bytes(outputs=[{"name": "release_id", "parameters": "x"}]), ID, None),
        (of_bytes(), ID + b"more", None),
        (of_bytes(), b"", None),
        (of_bytes(size=2**62), ID, None),
        (of_bytes(size=-8), ID, None),
        (of_bytes(size="8"), ID, None),
        (of_bytes(size=7), ID[:7], None),
        (of_bytes([2], 16), ID, None),
        (of_bytes(["1"]), ID, None),
        (of_bytes([True]), ID, None),
        (of_bytes(), ID, "999999"),
        (of_bytes(), ID, "-1"),
        (of_bytes(), ID, "1e2"),
        ([], ID, None),
        ({"inputs": "x"}, ID, None),
        ({"inputs": [7]}, ID, None),
        ({"inputs": [{**of_bytes()["inputs"][0], "data": [1]}]}, ID, None),
    ],
)
def test_a_binary_body_that_is_wrong_is_400(predictor: Asker, head: Any, tail: bytes, length: str | None) -> None:
    answer = binary(predictor, head, tail, length)
    assert answer.status == 400 and in_one_shape(answer.body), answer.body


def test_a_binary_body_that_is_right_is_answered_in_binary(predictor: Asker) -> None:
    assert outputs(binary(predictor, of_bytes(), ID).body)["release_id"] == [7]
    answer = binary(predictor, of_bytes(parameters={"binary_data_output": True}), ID)
    size = int(answer.headers["inference-header-content-length"])
    assert (
        struct.unpack("<d", answer.body[size : size + 8])[0]
        == predictor.v1(FULL).body["predictions"][0]["churn_probability"]
    )


@pytest.mark.parametrize(
    ("path", "body", "says"),
    [
        (V1, '{"instances": [1], "instances": [2]}', "'instances' stands there twice"),
        (V1, '{"instances": [{"customer_id": 1, "customer_id": 2}]}', "'customer_id' stands there twice"),
        (V2, '{"inputs": [], "inputs": []}', "'inputs' stands there twice"),
        (V2, '{"inputs": [', "line 1 column 13"),
        (V2, "", "empty"),
        (V2, json.dumps({"inputs": [tensor([1], ["1"])]}), "inputs.0.shape.0"),
        (V2, json.dumps({"inputs": [tensor([1], [True])]}), "inputs.0.shape.0"),
        (V2, json.dumps({"inputs": [{**tensor([1]), "datatype": "int64"}]}), "found 'int64'"),
        (V2, json.dumps({"inputs": [tensor([1])], "id": " "}), "printable ASCII"),
        (V2, json.dumps({"inputs": [tensor([1])], "id": 7}), "id:"),
    ],
)
def test_json_is_read_strictly_and_says_where_it_is_wrong(predictor: Asker, path: str, body: str, says: str) -> None:
    answer = predictor.http("POST", path, body)
    assert answer.status == 400 and says in answer.body["error"], answer.body


def test_a_large_body_that_is_wrong_holds_up_nobody(predictor: Asker) -> None:
    members = ", ".join(f'"{number}": 1' for number in range(70_000))
    begun = time.monotonic()
    for body in (f'{{{members}, "69999": 1}}', json.dumps({"instances": ["x" * 1_000_000]}), "[" * 1_000_000):
        assert predictor.http("POST", V1, body).status == 400
    assert time.monotonic() - begun < 5


def test_a_body_that_is_not_plain_json_is_415(predictor: Asker) -> None:
    body = json.dumps({"instances": [FULL]}).encode()
    for headers in (
        {"content_encoding": "gzip"},
        {"content_encoding": "deflate"},
        {"content_type": "text/plain"},
        {"content_type": "Text/Plain; charset=utf-8"},
        {"content_type": "multipart/form-data; boundary=x"},
    ):
        for path in (V1, V2):
            answer = predictor.http("POST", path, gzip.compress(body), **headers)
            assert answer.status == 415 and in_one_shape(answer.body), answer.body


def test_a_request_id_that_comes_twice_in_a_request_is_the_first(predictor: Asker) -> None:
    for path, body in (("/v9", b"{}"), (V1, b"{"), (V1, b'{"instances": [999999999]}')):
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nx-request-id: a1\r\nx-request-id: a2\r\n"
        head += f"Content-Length: {len(body)}\r\n\r\n"
        assert raw(predictor, head.encode() + body)[1]["request_id"] == "a1"


def test_head_is_answered_where_get_is(predictor: Asker) -> None:
    for path in ("/v2/health/live", launch.ready(CHURN), "/metrics", "/v1/models/churn-predictor"):
        answer = predictor.http("HEAD", path)
        assert (answer.status, answer.body) == (200, b"")


@pytest.mark.parametrize("path", [V1, V2, "/metrics", launch.ready(CHURN)])
@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        ("evil.example", None, 403),
        ("evil.example:80", None, 403),
        ("127.0.0.1.evil.example", None, 403),
        ("127.0.0.1@evil.example", None, 403),
        ("", None, 403),
        ("localhost", "http://evil.example", 403),
        ("localhost", "null", 403),
        ("localhost", "http://192.168.0.7", 403),
        ("localhost:9000", "http://localhost:9000", 200),
        ("localhost", None, 200),
        ("127.0.0.1:8080", None, 200),
        ("[::1]:8080", None, 200),
        ("10.1.2.3:8080", None, 200),
        ("churn-model", None, 200),
    ],
)
def test_a_foreign_host_or_origin_is_refused(
    predictor: Asker, path: str, host: str, origin: str | None, status: int
) -> None:
    bodies = {V1: {"instances": [FULL]}, V2: {"inputs": [tensor([FULL])]}}
    method, body = ("POST", json.dumps(bodies[path])) if path in bodies else ("GET", None)
    headers = {"host": host, **({"origin": origin} if origin else {})}
    answer = predictor.http(method, path, body, **headers)
    assert answer.status == status
    assert status == 200 or in_one_shape(answer.body)


def test_a_name_with_a_dot_is_taken_when_it_is_set() -> None:
    from plumbline.servers import callers

    names = ["churn-model.churn-prod", ".churn-prod.svc.cluster.local"]
    callers.check(["churn-model.churn-prod:9000"], [], names)
    callers.check(["churn-model.churn-prod.svc.cluster.local."], ["https://churn-model.churn-prod"], names)
    with pytest.raises(callers.Foreign, match="PLUMBLINE_SERVING_HOSTS"):
        callers.check(["churn-prod.svc.cluster.local.evil.example"], [], names)


def test_rows_of_the_log_have_one_key_whatever_callers_call_their_requests(predictor: Asker) -> None:
    from plumbline.lake import tables as lake

    ids = [
        predictor.v1(*customers, x_request_id="constant").headers["x-request-id"] for customers in ([1], [2], [1, 1])
    ]
    ids += [predictor.v2(FULL, id="constant").body["id"], predictor.grpc_id("constant")]
    assert ids[0] == "constant" and len(set(ids)) == 5
    assert all(name.startswith("constant") and len(name) <= 128 for name in ids)

    def logged() -> list[tuple[str, int]]:
        if lake.version("serving.predictions") is None:
            return []
        table = lake.open_table("serving.predictions").to_pyarrow_table(columns=["request_id", "customer_id"])
        return [(r["request_id"], r["customer_id"]) for r in table.to_pylist() if r["request_id"] in ids]

    eventually(lambda: len(set(logged())) == 5, 20)
    assert len(logged()) == 5


def test_grpc_that_drains_is_unavailable_and_never_unknown(predictor: Asker) -> None:
    """The last test: the predictor ends with it."""
    import grpc
    from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb
    from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import GRPCInferenceServiceStub

    request = pb.ModelInferRequest(model_name="churn-predictor", inputs=grpc_tensors(FULL))
    codes: set[str] = set()
    ended = threading.Event()

    def ask() -> None:
        with grpc.insecure_channel(f"127.0.0.1:{predictor.service.more['grpc_port']}") as channel:
            while not ended.is_set():
                try:
                    GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=60)
                    codes.add("OK")
                except grpc.RpcError as error:
                    codes.add(error.code().name)

    asking = [threading.Thread(target=ask) for _ in range(6)]
    for thread in asking:
        thread.start()
    eventually(lambda: "OK" in codes)
    os.kill(predictor.service.pid, signal.SIGTERM)
    _, status = os.waitpid(predictor.service.pid, 0)
    ended.set()
    for thread in asking:
        thread.join()
    assert os.waitstatus_to_exitcode(status) == 0
    # gRPC's own server cancels a call that arrives in the very moment in which it stops.
    assert {"OK", "UNAVAILABLE"} <= codes <= {"OK", "UNAVAILABLE", "CANCELLED"}
