"""The image product's page: the seven stages with what each left, and pictures to look at."""

from __future__ import annotations

import base64
from collections import defaultdict
from pathlib import Path
from typing import Any

from plumbline import files
from plumbline.display import page
from plumbline.lake import tables as lake
from plumbline.pictures import names as picture_names
from plumbline.settings import settings
from plumbline.state import ledger, objects, releases, trainings
from products.images import CLEAN, IMAGES, RAW
from serving.rollout import page as rollout_page
from serving.rollout import state

SHOWN = 12
"""Groups of near duplicates on the page, at most."""


def write(answers: list[dict[str, Any]]) -> Path:
    """Writes `<home>/report/images/index.html`; its path. `answers` as the demo has them."""
    release = releases.required(IMAGES.name)
    clean = lake.open_table(CLEAN, release.version(CLEAN)).to_pyarrow_table().to_pylist()
    return page.write(
        settings().home / "report" / IMAGES.name / "index.html",
        "images.html",
        release=release,
        artifacts=artifacts(),
        manifest=_totals(clean),
        quarantined=_quarantined(clean, release.version(RAW)),
        groups=_groups(clean),
        plots=_plots(release.release_id),
        leaky=trainings.datasets(IMAGES.name).get(f"{release.release_id}-leaky"),
        answers=answers,
        rolled_out=rollout_page.write(IMAGES) if state.keys(IMAGES) else None,
    )


def artifacts() -> list[dict[str, str]]:
    """What the seven stages left: `stage`, `name` and `hash`, – where it was not run."""
    release = releases.required(IMAGES.name)
    about = objects.read_json(trainings.key(IMAGES.name, release.release_id, trainings.ABOUT)) or {}
    run = objects.read_json(trainings.key(IMAGES.name, release.release_id, trainings.RUN)) or {}
    deployed, reproduced = _newest("deploy"), _newest("reproduce")
    return [
        _object("01 ingest", "raw-images", "manifests/raw_manifest"),
        _object("02 clean", "clean-images", "manifests/clean_manifest"),
        _object("03 features", "clean-images", "manifests/features_manifest"),
        {"stage": "04 dataset", "name": about.get("dataset_id", "–"), "hash": about.get("content_hash", "–")},
        {"stage": "05 train", "name": run.get("mlflow_run_id", "–"), "hash": run.get("model_sha256", "–")},
        {
            "stage": "06 serve",
            "name": f"{IMAGES.model} {deployed.get('champion', '–')}",
            "hash": _served(),
        },
        {"stage": "07 reproduce", "name": reproduced.get("message", "not run yet"), "hash": "–"},
    ]


def _served() -> str:
    """The digest that the champion's signature is over."""
    from plumbline.registry import registered_models, signing, trusted_models

    champion = registered_models.find(IMAGES.model, registered_models.CHAMPION) if registered_models.exist() else None
    bundle = champion.tags.get(trusted_models.SIGNATURE) if champion else None
    return signing.digest(bundle) if bundle else "–"


def _object(stage: str, bucket: Any, prefix: str) -> dict[str, str]:
    store = objects.store_at(settings().bucket(bucket))
    keys = [key for key in store.keys("manifests", None) if key.startswith(prefix)]
    there = [found for key in keys if (found := store.read(key)) is not None]
    if not there:
        return {"stage": stage, "name": "–", "hash": "–"}
    newest = max(there, key=lambda found: found.written_at)
    return {"stage": stage, "name": newest.where, "hash": f"sha256:{files.sha256(newest.content)}"}


def _newest(stage: str) -> dict[str, Any]:
    return ledger.newest(IMAGES.name, stage, "COMPLETE") or {}


def _totals(clean: list[dict[str, Any]]) -> dict[str, Any]:
    reasons: dict[str, int] = defaultdict(int)
    for row in clean:
        if row["state"] != "clean":
            reasons[row["reason"]] += 1
    return {"raw": len(clean), "clean": len(clean) - sum(reasons.values()), "reasons": dict(sorted(reasons.items()))}


def _quarantined(clean: list[dict[str, Any]], raw_version: int) -> list[dict[str, Any]]:
    """Some of what was set aside, of each reason: the file's name, why, and the picture that it repeats."""
    import pyarrow as pa
    import pyarrow.compute as pc

    by_reason: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in clean:
        if row["state"] != "clean":
            by_reason[row["reason"]].append(row)
    chosen = [row for rows in by_reason.values() for row in rows[:2]]
    table = lake.open_table(RAW, raw_version).to_pyarrow_dataset()
    ids = [row["image_id"] for row in chosen]
    chosen_ids = pc.field("image_id").isin(pa.array(ids, pa.string()))
    named = table.to_table(columns=["image_id", "source_name"], filter=chosen_ids).to_pylist()
    names = {row["image_id"]: row["source_name"] for row in named}
    of = {row["image_id"]: row for row in clean}
    return [
        {
            "name": names.get(row["image_id"], row["image_id"]),
            "reason": row["reason"],
            "detail": row["detail"],
            "picture": _picture(of.get(row["duplicate_of"])),
        }
        for row in chosen
    ]


def _groups(clean: list[dict[str, Any]]) -> list[list[str]]:
    """The largest groups of near duplicates, some pictures of each."""
    by_group: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in clean:
        if row["state"] == "clean":
            by_group[row["group_id"]].append(row)
    largest = sorted((rows for rows in by_group.values() if len(rows) > 1), key=len, reverse=True)
    return [[_picture(row) or "" for row in rows[:6]] for rows in largest[:SHOWN]]


def _picture(row: dict[str, Any] | None) -> str | None:
    """A clean picture as an address that a page holds itself; None where there is none."""
    if row is None or not row["clean_uri"]:
        return None
    there = objects.store_at(settings().bucket("clean-images")).read(picture_names.clean_key(row["clean_uri"]))
    return _address(there.content) if there else None


def _plots(release_id: int) -> dict[str, str]:
    folder = settings().home / "training" / IMAGES.name / str(release_id) / "plots"
    return {path.stem: _address(path.read_bytes()) for path in sorted(folder.glob("*.png"))}


def _address(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
