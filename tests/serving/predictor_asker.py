"""Asks a running predictor over HTTP v1, v2 and gRPC."""

from __future__ import annotations

import http.client
import json
from dataclasses import dataclass
from typing import Any

import grpc

from plumbline.servers import services

V1 = "/v1/models/churn-predictor:predict"
V2 = "/v2/models/churn-predictor/infer"


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: Any


class Asker:
    """Asks the predictor and keeps every prediction it was given, to be looked up in the outcome log."""

    def __init__(self, service: services.Service) -> None:
        self.service = service
        self.scored: dict[tuple[str, int], float] = {}
        self.channel = grpc.insecure_channel(f"127.0.0.1:{service.more['grpc_port']}")

    def http(self, method: str, path: str, body: bytes | str | None = None, **headers: str) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.service.port, timeout=15)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, {"content-type": "application/json", **named})
        response = connection.getresponse()
        data = response.read()
        connection.close()
        given_headers = {name.lower(): value for name, value in response.getheaders()}
        parsed = json.loads(data) if data and given_headers.get("content-type") == "application/json" else data
        return Answer(response.status, given_headers, parsed)

    def v1(self, *customers: Any, **headers: str) -> Answer:
        answer = self.http("POST", V1, json.dumps({"instances": customers}), **headers)
        if answer.status == 200:
            for found in answer.body["predictions"]:
                key = (answer.headers["x-request-id"], found["customer_id"])
                self.scored[key] = found["churn_probability"]
        return answer

    def v2(self, *customers: int, **more: Any) -> Answer:
        body = {"inputs": [tensor(list(customers))], **more}
        answer = self.http("POST", V2, json.dumps(body))
        if answer.status == 200 and "outputs" not in more:
            scores = outputs(answer.body)["churn_probability"]
            self.scored |= {(answer.body["id"], c): s for c, s in zip(customers, scores, strict=True)}
        return answer

    def grpc(self, *customers: int, name: str = "customer_id", shape: list[int] | None = None) -> Any:
        from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb
        from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import GRPCInferenceServiceStub

        tensors = [
            pb.ModelInferRequest.InferInputTensor(
                name=name,
                datatype="INT64",
                shape=shape or [len(customers)],
                contents=pb.InferTensorContents(int64_contents=customers),
            )
        ]
        request = pb.ModelInferRequest(model_name="churn-predictor", inputs=tensors if customers else [])
        answer = GRPCInferenceServiceStub(self.channel).ModelInfer(request, timeout=10)
        scores = answer.outputs[0].contents.fp64_contents
        self.scored |= {(answer.id, c): s for c, s in zip(customers, scores, strict=True)}
        return answer

    def grpc_id(self, request_id: str) -> str:
        """The id of the answer to a gRPC request of that id, for a customer of whom others ask too."""
        from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb
        from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import GRPCInferenceServiceStub

        contents = pb.InferTensorContents(int64_contents=[1])
        only = pb.ModelInferRequest.InferInputTensor(name="customer_id", datatype="INT64", shape=[1], contents=contents)
        request = pb.ModelInferRequest(model_name="churn-predictor", id=request_id, inputs=[only])
        return str(GRPCInferenceServiceStub(self.channel).ModelInfer(request, timeout=10).id)

    def metric(self, line: str) -> float:
        text = self.http("GET", "/metrics").body.decode()
        return next((float(row.rpartition(" ")[2]) for row in text.splitlines() if row.startswith(line + " ")), 0.0)


def tensor(data: Any, shape: Any = None, **more: Any) -> dict[str, Any]:
    return {"name": "customer_id", "datatype": "INT64", "shape": shape or [len(data)], "data": data, **more}


def outputs(body: Any) -> dict[str, list[Any]]:
    return {output["name"]: output["data"] for output in body["outputs"]}
