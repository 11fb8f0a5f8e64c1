"""The image product as a person runs it: each stage by its command, then a predictor that is asked in every way."""

from __future__ import annotations

import base64
import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]
import pytest

from observability import stack
from plumb.demo.images import asked
from plumb.demo.simulated_images import Callers
from plumb.demo.simulated_traffic import Traffic
from plumbline import clock
from plumbline.lake import tables as lake
from plumbline.registry import registered_models, signing, trusted_models
from plumbline.servers import online_store, services
from plumbline.settings import ROOT, settings
from plumbline.state import objects, releases, trainings
from products.churn import CHURN
from products.images import IMAGES, LOG
from serving import launch
from serving.rollout import manifests, state
from serving.rollout.driver import Aborted, Driver, paced
from serving.rollout.laptop import Laptop
from tests.e2e import panels
from tests.plumbline.pictures.malformed import malformed
from tests.serving import as_a_pod
from tests.serving.made_up_customers import eventually
from training import variants

pytestmark = pytest.mark.slow

DAILY = ("ingest", "clean", "features", "release", "materialize", "parity_check")
TRAINING = ("dataset", "leakage_check", "train", "register", "deploy")


def plumb(*arguments: str) -> str:
    """One command of the image product; what it printed. It must succeed."""
    done = subprocess.run(
        [sys.executable, "-m", "plumb", "images", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def images_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home in which every stage was run on 300 digits."""
    with pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("images")
        patch.setenv("PLUMBLINE_HOME", str(home))
        patch.setenv("PLUMBLINE_IMAGES_SOURCE", "mnist:300")
        settings.cache_clear()
        for stage in (*DAILY, *TRAINING):
            plumb(stage)
        yield home
        services.stop_all()
    settings.cache_clear()


RATE = 60.0
PREDICT = f"/v1/models/{IMAGES.service}:predict"
INFER = f"/v2/models/{IMAGES.service}/infer"


def post(path: str, body: object, headers: dict[str, str] | None = None, port: int | None = None) -> tuple[int, Any]:
    """A request to the home's predictor, or to the one at that port; bytes are sent as they are."""
    connection = http.client.HTTPConnection(services.HOST, port or launch.ensure(IMAGES).port, timeout=30)
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    connection.request("POST", path, content, headers or {"Content-Type": "application/json"})
    answer = connection.getresponse()
    return answer.status, json.load(answer)


def b64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def test_every_stage_again_changes_nothing(images_home: Path) -> None:
    before = releases.required(IMAGES.name)
    about = objects.read_json(trainings.key(IMAGES.name, before.release_id, trainings.ABOUT))
    for stage in (*DAILY, *TRAINING):
        plumb(stage)
    assert releases.required(IMAGES.name) == before
    assert objects.read_json(trainings.key(IMAGES.name, before.release_id, trainings.ABOUT)) == about


def test_by_id_and_by_bytes_the_answer_is_the_same_bit_for_bit(images_home: Path) -> None:
    pictures = asked(24)
    status, by_id = post(PREDICT, {"instances": [{"image_id": image} for image in pictures]})
    assert status == 200
    answers = {answer["image_id"]: answer for answer in by_id["predictions"]}
    compared = ("image_id", "label", "probability", "probabilities", "embedding_sha256")
    for image, content in pictures.items():
        status, by_bytes = post(PREDICT, {"instances": [{"image": {"b64": b64(content)}}]})
        assert status == 200
        (answer,) = by_bytes["predictions"]
        assert {name: answer[name] for name in compared} == {name: answers[image][name] for name in compared}
        assert (answer["release_id"], answer["features_age_seconds"]) == (None, None)


def test_v2_says_the_same_in_json_and_in_binary(images_home: Path) -> None:
    ((image, content),) = asked(1).items()
    tensor = {"datatype": "BYTES", "shape": [1]}
    _, by_id = post(INFER, {"inputs": [{"name": "image_id", "data": [image], **tensor}]})
    _, by_bytes = post(INFER, {"inputs": [{"name": "image", "data": [b64(content)], **tensor}]})
    tail = len(content).to_bytes(4, "little") + content
    head = json.dumps({"inputs": [{"name": "image", **tensor, "parameters": {"binary_data_size": len(tail)}}]}).encode()
    headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(head))}
    _, binary = post(INFER, head + tail, headers)
    said = [{output["name"]: output["data"] for output in answer["outputs"]} for answer in (by_id, by_bytes, binary)]
    for name in ("image_id", "label", "probability", "embedding_sha256"):
        assert said[0][name] == said[1][name] == said[2][name]
    assert (said[0]["release_id"], said[1]["release_id"]) == ([1], [0])


def test_grpc_says_the_same_by_id_and_by_bytes(images_home: Path) -> None:
    from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb
    from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import GRPCInferenceServiceStub

    ((image, content),) = asked(1).items()
    with grpc.insecure_channel(f"{services.HOST}:{launch.ensure(IMAGES).more['grpc_port']}") as channel:
        infer = GRPCInferenceServiceStub(channel).ModelInfer

        def answered(name: str, value: bytes) -> dict[str, Any]:
            tensor = pb.ModelInferRequest.InferInputTensor(name=name, datatype="BYTES", shape=[1])
            tensor.contents.bytes_contents.append(value)
            answer = infer(pb.ModelInferRequest(model_name=IMAGES.service, inputs=[tensor]), timeout=30)
            return {output.name: output.contents for output in answer.outputs}

        by_id, by_bytes = answered("image_id", image.encode()), answered("image", content)
        for name in ("image_id", "label", "probability", "embedding_sha256"):
            assert by_id[name] == by_bytes[name]
        with pytest.raises(grpc.RpcError) as refused:
            answered("image", b"no picture")
        assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert "not_an_image" in refused.value.details()


def test_every_panel_of_its_boards_answers_and_tells_what_was_refused(images_home: Path) -> None:
    """The real exporter, predictor and Prometheus; of the table of a version that nobody asked for there is no line."""
    ((image, content),) = asked(1).items()
    launch.ensure(IMAGES)
    stack.up(stack.Pace(interval="1s"))

    def tells(shown: panels.Shown) -> bool:
        instances = ({"image_id": image}, {"image": {"b64": b64(content)}}, {"image": {"b64": b64(b"no picture")}})
        statuses = [post(PREDICT, {"instances": [one]})[0] for one in (*instances, "0" * 32)]
        assert statuses == [200, 200, 400, 404]
        titles = {title for title in panels.empty(shown) if not any(map(panels.numbers, shown[title]))}
        return titles <= {"Firing now", "Set aside, by reason"} and {"unknown", "not_an_image"} <= {
            series["metric"].get("reason") for series in shown["Refused a second, by why"][1]
        }

    shown = panels.until(IMAGES, tells)
    assert panels.values(shown, "Landed, clean, set aside") == [300.0, 300.0, 0.0]
    assert panels.values(shown, "New embeddings of the last run") == [300.0]
    assert sum(panels.values(shown, "Rows of the newest dataset")) == 300
    assert panels.values(shown, "Clean pictures that are not online") == [0.0]
    assert panels.values(shown, "Embeddings lost or unfit, last hour") == [0.0]
    assert {series["metric"]["input"] for series in shown["Scored a second, by input"][0]} == {"image_id", "image"}
    assert shown["Firing now"] == [[]]


def test_no_bad_picture_is_answered_with_anything_but_a_4xx(images_home: Path) -> None:
    accepted = []
    for name, content, reason in malformed():
        status, answer = post(PREDICT, {"instances": [{"image": {"b64": b64(content)}}]})
        if status == 200:  # its name was wrong, not its bytes, and a request names no file
            accepted.append(reason)
        else:
            assert status in (400, 413), f"{name}: {status} {answer}"
            assert set(answer) == {"error", "images", "request_id"}
    assert set(accepted) <= {"wrong_extension"}
    ((image, _),) = asked(1).items()
    assert post(PREDICT, {"instances": [image]})[0] == 200


def test_an_image_that_nobody_knows_is_404_and_named(images_home: Path) -> None:
    status, answer = post(PREDICT, {"instances": ["0" * 32]})
    assert status == 404 and answer["images"] == {
        "0" * 32: "unknown: the release that is online has no row of this image"
    }


def test_answers_are_logged_and_why_tells_of_them(images_home: Path) -> None:
    ((image, content),) = asked(1).items()
    post(PREDICT, {"instances": [image]})
    post(PREDICT, {"instances": [{"image": {"b64": b64(content)}}]})

    def logged() -> set[str]:
        rows = lake.open_table(LOG).to_pyarrow_table().to_pylist() if lake.version(LOG) is not None else []
        return {row["asked_by"] for row in rows if row["image_id"] == image}

    eventually(lambda: logged() == {"id", "bytes"}, 20)
    checked = json.loads(plumb("parity_check", "--json").splitlines()[-1])
    assert checked["answers_replayed"] > 0 and checked["mismatches"] == 0
    told = plumb("why", image[:12])
    assert "asked by bytes" in told and "embedding v1 by efficientnet-lite0@sha256:" in told
    assert f"c1/{image[:2]}/{image}.png" in told.replace("\n", "")


def test_a_pod_s_predictor_answers_as_the_home_s_does(images_home: Path, tmp_path: Path) -> None:
    """In an empty home, on a read-only root, without a registry: the network is the cache's, the model a folder's."""
    import mlflow

    champion = registered_models.find(IMAGES.model, "champion")
    assert champion is not None
    folder = tmp_path / "model"
    mlflow.artifacts.download_artifacts(f"models:/{IMAGES.model}/{champion.version}", dst_path=folder)
    (folder / trusted_models.NOTE).unlink(missing_ok=True)
    home, scratch, port = tmp_path / "home", tmp_path / "scratch", services.free_port()
    home.mkdir()
    scratch.mkdir()
    bundle = champion.tags[trusted_models.SIGNATURE]
    env = {name: value for name, value in os.environ.items() if not name.startswith("PROMETHEUS_")} | {
        "PLUMBLINE_HOME": str(home),
        "HOME": str(scratch),
        "TMPDIR": str(scratch),
        "PLUMBLINE_REDIS_URL": online_store.url(),
        "PLUMBLINE_VERIFY_KEY": str(images_home / "keys" / "demo-verify.pem"),
        "PLUMBLINE_MODEL_VERSION": str(champion.version),
        "PLUMBLINE_MODEL_RUN": str(champion.run_id),
        "PLUMBLINE_MODEL_DIGEST": signing.digest(bundle),
        "PLUMBLINE_MODEL_SIGNATURE": signing.packed(bundle),
        "PLUMBLINE_IMAGES_THREADS": "2",
        **as_a_pod.locked(tmp_path),
    }
    ((image, content),) = asked(1).items()
    body = {"instances": [{"image_id": image}, {"image": {"b64": b64(content)}}]}
    serve = as_a_pod.read_only(as_a_pod.command(IMAGES, folder, port), home, scratch)
    with subprocess.Popen(serve, env=env, cwd="/", stderr=subprocess.PIPE) as pod:
        try:
            ready = f"http://{services.HOST}:{port}{launch.ready(IMAGES)}"
            eventually(lambda: pod.poll() is not None or services.answers(ready, 2), 60)
            assert pod.poll() is None, pod.stderr.read().decode()[-2000:] if pod.stderr else ""
            status, answer = post(PREDICT, body, port=port)
        finally:
            pod.send_signal(signal.SIGTERM)
            pod.communicate(timeout=30)
    _, here = post(PREDICT, body)
    assert status == 200
    for theirs, ours in zip(answer["predictions"], here["predictions"], strict=True):
        assert theirs | {"features_age_seconds": None} == ours | {"features_age_seconds": None}
    assert {path.name for path in home.iterdir()} == {"feast", "lake", "lineage.ndjson"}, "SIGTERM writes the log"


def test_a_canary_whose_classes_were_swapped_is_stopped_by_what_came_of_its_answers(images_home: Path) -> None:
    whole = manifests.rollout(manifests.rollout_file(IMAGES))
    laptop = Laptop(IMAGES, replace(whole, steps=whole.steps[-2:]), manifests.templates(IMAGES))
    where = laptop.up()[IMAGES.host]
    args = {**paced(RATE, first=50), "count": "60", "latency-slack": "5000"}  # of a busy machine
    with (
        Traffic(where, RATE, Callers()) as traffic,
        pytest.raises(Aborted, match="agreement-rate: .* a value > 0.05 / 2"),
    ):
        Driver(laptop, args).run(variants.register(IMAGES, "swapped")["version"])
    status = state.newest(IMAGES)
    assert status and [item["canary"] for item in status.weights] == [50, 0]
    assert {answer.version for answer in traffic.answers} == {"1", "2"} and set(traffic.statuses()) == {200}
    bad = {item["metric"] for item in status.measurements if item["phase"] == "Failed"}
    assert bad == {"agreement-rate"}, "its scores are a good model's"
    champion = registered_models.find(IMAGES.model, registered_models.CHAMPION)
    assert champion and str(champion.version) == "1" and services.find(launch.canary_name(IMAGES)) is None
    outcomes = lake.open_table(IMAGES.outcomes).to_pyarrow_table().to_pylist()
    assert len(outcomes) == traffic.statuses()[200] and all(row["simulated"] for row in outcomes)
    assert state.newest(CHURN) is None


def test_a_picture_that_comes_later_is_the_next_days(images_home: Path) -> None:
    assert clock.end_of(releases.required(IMAGES.name).as_of) <= clock.now()
    done = subprocess.run(
        [sys.executable, "-m", "plumb", "images", "ingest", "--as-of", "2001-01-01"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0 and "covers" in done.stdout, "an older day is covered by the release"
