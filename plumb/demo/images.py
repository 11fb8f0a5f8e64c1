"""The image product's demo: pictures through Airflow to a model that answers, and a page of what came of it."""

from __future__ import annotations

import base64
import os
from typing import Any

from plumb.demo.demo import following_ledger, raise_what_failed
from plumb.reports import images_page
from plumbline import clock
from plumbline.lake import tables as lake
from plumbline.orchestration import airflow
from plumbline.pictures import names
from plumbline.progress import say
from plumbline.servers import services
from plumbline.settings import settings
from plumbline.state import objects, releases, trainings
from products.images import CLEAN, IMAGES, RAW
from serving import client, launch

ASKED = 8
"""Pictures that are asked by id and by bytes."""


def demo(source: str | None = None, keep: bool = False) -> None:
    """Runs the DAG `images` for the last day that is over, serves, asks each way, and writes the page.

    `source` as in PLUMBLINE_IMAGES_SOURCE. Servers are stopped at the end unless `keep`.
    """
    begun, already_up = clock.monotonic(), services.running()
    try:
        seconds = through_airflow(source)
        say("starting the predictor, and asking it by id and by bytes")
        answers = _answers()
        seconds["reproduce"] = _made_again()
        path = images_page.write(answers)
        _show(answers, seconds, clock.monotonic() - begun)
        print(f"  Page: {path}")
    finally:
        if not keep:
            stopped = services.stop_all(keep=already_up)
            say(f"stopped {', '.join(stopped)}" if stopped else "the servers that were running stay up: `make down`")


def through_airflow(source: str | None = None) -> dict[str, float]:
    """Runs the DAG for the last day that is over; seconds a task. Raises DemoError with what the failed stage said."""
    if source is not None:
        os.environ["PLUMBLINE_IMAGES_SOURCE"] = source
        settings.cache_clear()
    say(f"images from {settings().images_source} through Airflow: the DAG {IMAGES.daily}")
    seconds: dict[str, float] = {}
    with following_ledger(IMAGES.name):
        try:
            for _, task, _, took in airflow.run([(IMAGES.daily, clock.last_whole_day().isoformat())]):
                seconds[task] = took
        except airflow.AirflowError:
            raise_what_failed(IMAGES.name)
            raise
    return seconds


def asked(most: int) -> dict[str, bytes]:
    """Some of the release's clean images by their ids, each with the bytes that it landed as."""
    release, raw = releases.required(IMAGES.name), objects.store_at(settings().bucket("raw-images"))
    clean = lake.open_table(CLEAN, release.version(CLEAN)).to_pyarrow_table(columns=["image_id", "state"]).to_pylist()
    ids = sorted(row["image_id"] for row in clean if row["state"] == "clean")
    landed = lake.open_table(RAW, release.version(RAW)).to_pyarrow_table(columns=["image_id", "minio_uri"]).to_pylist()
    keys = {row["image_id"]: names.raw_key(row["minio_uri"]) for row in landed}
    chosen = ids[:: max(1, len(ids) // most)][:most]
    return {image: found.content for image in chosen if (found := raw.read(keys[image])) is not None}


def _answers() -> list[dict[str, Any]]:
    """Answers by id for some clean pictures, with `same`: whether the picture's raw bytes give the same answer."""
    launch.ensure(IMAGES)
    compared = ("image_id", "label", "probability", "probabilities", "embedding_sha256")
    answers = []
    for image, content in asked(ASKED).items():
        picture = base64.b64encode(content).decode()
        by_id, by_bytes = (_one(instance) for instance in ({"image_id": image}, {"image": {"b64": picture}}))
        answers.append({**by_id, "same": all(by_id[name] == by_bytes[name] for name in compared)})
    return answers


def _made_again() -> float:
    """07: the release's model is made again from what MLflow says of it; the seconds it took.

    Changes that were never committed cannot be checked out, so then it is said and left out.
    """
    from training import reproduce

    release = releases.required(IMAGES.name)
    run = objects.read_json(trainings.key(IMAGES.name, release.release_id, trainings.RUN)) or {}
    begun = clock.monotonic()
    if not reproduce.COMMIT.fullmatch(run["code_sha"]):
        say("07 reproduce is left out: the model was trained on changes that are in no commit")
        return 0.0
    say("making the model again from what MLflow says of its run")
    made = reproduce.reproduce(run["mlflow_run_id"])
    if made["broken"]:
        raise client.DemoError(f"{made['message']}: `plumb reproduce {run['mlflow_run_id']}` shows every link")
    return clock.monotonic() - begun


def _one(instance: dict[str, Any]) -> dict[str, Any]:
    status, answer = client.predict(IMAGES, [instance])
    if status != 200:
        raise client.DemoError(f"the predictor answered {status}: {answer.get('error')}")
    prediction: dict[str, Any] = answer["predictions"][0]
    return prediction


def _show(answers: list[dict[str, Any]], seconds: dict[str, float], whole: float) -> None:
    from plumbline.display import page, terminal

    console = terminal.console(150)
    told = terminal.table("Seven stages", "stage", "artifact", "hash")
    for one in images_page.artifacts():
        told.add_row(one["stage"], one["name"], page.short(one["hash"]))
    console.print(told)
    same = sum(answer["same"] for answer in answers)
    console.print(f"  {same} of {len(answers)} pictures: by id and by bytes the same answer, bit for bit")
    slowest = sorted(seconds.items(), key=lambda item: -item[1])[:4]
    console.print(f"  {whole:.0f} s in all; " + ", ".join(f"{name} {took:.0f} s" for name, took in slowest))
