"""Every stage of the image product dies once by SIGKILL half way, and is run again: the same hashes at the end.

Two homes run the same commands on 1,200 digits at one time of the clock. In one nothing is ever killed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from drills import striking
from drills.striking import Kill, files_reach, in_mlflow, new_file, redis_writes, started
from plumbline import files
from plumbline.lake import tables as lake
from plumbline.servers import online_store, services
from plumbline.settings import ROOT, settings
from plumbline.state import ledger, releases
from products.images import CLEAN, IMAGES, LABELS, RAW
from tests.conftest import use_home
from tests.e2e.test_kill_and_resume import plumb

pytestmark = [pytest.mark.kill, pytest.mark.timeout(3600)]

IMAGES_LANDED = 1_200
HALF = IMAGES_LANDED // 2
REPORT = ROOT / ".plumbline" / "report" / "images-kill-and-resume.md"
TABLES = (RAW, LABELS, CLEAN, IMAGES.features)

STEPS: list[tuple[str, list[Kill]]] = [
    ("ingest", [Kill("half of the pictures in the bucket", files_reach("buckets/raw-images/*/*.png", HALF))]),
    ("clean", [Kill("half of the clean pictures in the bucket", files_reach("buckets/clean-images/c1/*/*", HALF))]),
    ("features", [Kill("two of five parts embedded", files_reach("buckets/clean-images/embeddings/**/*.parquet", 2))]),
    ("release", [Kill("begun, nothing published", started("release", IMAGES.name))]),
    ("materialize", [Kill("half of the images in Redis", redis_writes(HALF * 9))]),
    ("parity_check", [Kill("begun, nothing compared", started("parity_check", IMAGES.name))]),
    ("dataset", [Kill("rows written, not described", new_file("training/images/1/dataset.parquet"))]),
    ("leakage_check", [Kill("begun, no verdict", started("leakage_check", IMAGES.name))]),
    (
        "train",
        [
            Kill("MLflow's run open", in_mlflow("SELECT count(*) FROM runs")),
            Kill("model logged", new_file("mlflow/artifacts/**/*.onnx")),
        ],
    ),
    ("register", [Kill("version made, not judged", in_mlflow("SELECT count(*) FROM model_versions"))]),
    ("deploy", [Kill("begun, no champion", started("deploy", IMAGES.name))]),
]


@pytest.fixture
def patch() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("SPARK_REMOTE", raising=False)
        patch.setenv("PLUMBLINE_IMAGES_SOURCE", f"mnist:{IMAGES_LANDED}")
        yield patch
    settings.cache_clear()


def a_home(home: Path, patch: pytest.MonkeyPatch) -> Path:
    return use_home(home, patch, now="2026-11-01T00:00:00Z", code_sha="the same in both homes")


def test_a_path_of_images_that_is_killed_everywhere_comes_to_the_same(
    tmp_path: Path, patch: pytest.MonkeyPatch
) -> None:
    never, killed = tmp_path / "whole", tmp_path / "stuck"  # of one length: Redis holds where a picture lies
    try:
        a_home(never, patch)
        whole = sum(plumb(f"images {command}")[1] for command, _ in STEPS)
        expected = outcome()
        services.stop_all()

        a_home(killed, patch)
        rows = [row for command, kills in STEPS for row in struck_and_resumed(killed, command, kills)]
        found = outcome()
        equal = {what: found[what] == expected[what] for what in expected}
        write_report(rows, equal, whole)
        assert all(equal.values()), {what: (expected[what], found[what]) for what in equal if not equal[what]}
    finally:
        for home in (never, killed):
            a_home(home, patch)
            services.stop_all()


def struck_and_resumed(home: Path, command: str, kills: list[Kill]) -> Iterator[tuple[str, str, str]]:
    """Kills the command at each moment, then runs it to its end; command, moment, and how it went on."""
    for kill in kills:
        before = len(list(ledger.events(IMAGES.name)))
        struck = striking.strike(home, ["images", *command.split()], kill)
        ended = [event for event in list(ledger.events(IMAGES.name))[before:] if event["state"] == "COMPLETE"]
        assert struck.code == -9 or ended, struck.told
        again = "killed again"
        if kill is kills[-1]:
            told, seconds = plumb(f"images {command}")
            again = f"{'already done' if 'unchanged' in told else 'done'} after {seconds:.0f} s"
        yield command, kill.told, again


def outcome() -> dict[str, Any]:
    """What must not depend on kills: rows by their content, the dataset and the model by their bytes."""
    from plumbline.registry import registered_models

    release = releases.required(IMAGES.name)
    training = settings().home / "training" / IMAGES.name / str(release.release_id)
    versions = registered_models.versions(IMAGES.model)
    return {
        **{f"{table}: rows": content(table, release.version(table)) for table in TABLES},
        "releases": [release.release_id, release.as_of, release.base, release.rejected],
        "rows in Redis": rows_in_redis(),
        "dataset's hash": json.loads((training / "dataset.json").read_text())["content_hash"],
        "model's SHA-256": json.loads((training / "run.json").read_text())["model_sha256"],
        "registered": [(one.version, sorted(one.aliases)) for one in versions],
    }


def rows_in_redis() -> tuple[int, str]:
    """Number of keys and a digest of all of their fields, without where the buckets of this home lie."""
    client, home = online_store.client(), str(settings().home).encode()
    keys = sorted(client.scan_iter(count=10_000))
    pipeline = client.pipeline(transaction=False)
    for key in keys:
        pipeline.hgetall(key)
    values = [sorted((name, value.replace(home, b"")) for name, value in row.items()) for row in pipeline.execute()]
    return len(keys), files.sha256(repr((keys, values)).encode())


def content(table: str, version: int) -> tuple[int, list[tuple[str, str]]]:
    """A table's rows as text, sorted, without where the buckets of this home lie."""
    home = str(settings().home)
    rows = [
        (row["image_id"], json.dumps({k: str(v).replace(home, "") for k, v in row.items()}, sort_keys=True))
        for row in lake.open_table(table, version).to_pyarrow_table().to_pylist()
    ]
    return len(rows), sorted(rows)


def write_report(rows: list[tuple[str, str, str]], equal: dict[str, bool], whole: float) -> None:
    """The table of kills, for whoever reads the run's output."""
    killed = "\n".join(f"| `plumb images {command}` | {when} | {again} |" for command, when, again in rows)
    same = "\n".join(f"| {what} | {'yes' if is_so else '**no**'} |" for what, is_so in equal.items())
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.write_text(
        f"{len(rows)} times SIGKILL on {IMAGES_LANDED:,} digits; the path without a kill took {whole:.0f} s.\n\n"
        f"| command | killed when | the same command again |\n|---|---|---|\n{killed}\n\n"
        f"| compared | equal |\n|---|---|\n{same}\n"
    )
    print(REPORT.read_text())
