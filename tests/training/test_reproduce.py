"""Each link of a reproduction, broken on purpose, is the one that is named. The whole of it is test_reproduce_whole."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from plumbline import files, provenance
from plumbline.lake import tables as lake
from plumbline.settings import ROOT, settings
from plumbline.state import releases
from plumbline.state.trainings import Place
from products.churn import CHURN
from training import canonical, rebuild, reproduce, runs, sealed, tracking
from training.churn import model
from training.errors import TrainingError
from training.rebuild import Rebuild
from training.reproduce import Chain, Recorded

HEAD = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture(scope="module")
def run_id(shop: Callable[[int], dict[str, Any]]) -> str:
    """The MLflow run of release 1, registered as version 1."""
    from training import register

    shop(1)
    trained = runs.train(Place(CHURN, 1))["versions"]["mlflow_run_id"]
    register.register(Place(CHURN, 1))
    return str(trained)


@pytest.fixture
def recorded(run_id: str, shop_home: Path) -> Recorded:
    """What MLflow says of it, as if it had been trained on this repository's commit."""
    found = reproduce.recover(tracking.client(), run_id)
    given = {**found.params, "code_sha": HEAD, "lock_hash": provenance.lock_hash()}
    return replace(found, params=given)


@pytest.fixture
def made(recorded: Recorded, shop_home: Path, tmp_path: Path) -> Rebuild:
    """A rebuild that came out as it should: the run's own files in another home."""
    again = Rebuild(tmp_path)
    shutil.copytree(shop_home / "training" / "churn" / "1", again.home / "training" / "churn" / "1")
    run = files.read_json(again.home / "training" / "churn" / "1" / "run.json") or {}
    files.write_whole(again.home / "training" / "churn" / "1" / "run.json", files.dumps({**run, "code_sha": HEAD}))
    stored = next((shop_home / "mlflow").rglob(f"{recorded.model_id}/artifacts/model.ubj"))
    (again.home / "mlflow").mkdir(parents=True)
    shutil.copy(stored, again.home / "mlflow")
    return again


def broken(recorded: Recorded, **params: str) -> dict[str, Any]:
    """What a reproduction says when MLflow had recorded these."""
    found = reproduce._reproduce(replace(recorded, params={**recorded.params, **params}), keep=False)
    assert not list((settings().home / "tmp").glob("reproduce-*")), "nothing is left"
    listed = subprocess.run(["git", "worktree", "list"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "reproduce-" not in listed
    return found


def test_mlflow_alone_says_what_a_run_was_made_from(run_id: str, shop_home: Path) -> None:
    client = tracking.client()
    found = reproduce.recover(client, run_id)
    assert found.tables == {"features.customers": 0, "analytics.orders": 0}
    assert found.about["content_hash"] == found.params["dataset_hash"]
    assert {"seed", "max_depth", "code_sha", "lock_hash"} <= set(found.params)
    assert reproduce.recover(client, "model:1") == reproduce.recover(client, "model:challenger") == found


def test_runs_that_cannot_be_made_again_say_why(run_id: str, shop_home: Path) -> None:
    client = tracking.client()
    for unknown in ("0" * 32, "model:99", "model:nobody"):
        with pytest.raises(TrainingError, match=f"MLflow has no run '{unknown}'"):
            reproduce.recover(client, unknown)
    bare = client.create_run(tracking.experiment_id(client, CHURN)).info.run_id
    with pytest.raises(TrainingError, match="is RUNNING|does not say its code_sha, lock_hash"):
        reproduce.recover(client, bare)
    client.set_terminated(bare)
    with pytest.raises(TrainingError, match="does not say its code_sha, lock_hash"):
        reproduce.recover(client, bare)


@pytest.mark.parametrize(
    ("params", "link", "told"),
    [
        ({"code_sha": f"{HEAD}-dirty.0123456789ab"}, "code_sha", "changes that were never committed"),
        ({"code_sha": "0" * 40}, "code_sha", "git fetch"),
        ({"data_version": "delta:features.customers@v=99"}, "data_version", "does not hold it any more"),
        ({"orders_version": "delta:analytics.orders@v=99"}, "orders_version", "does not hold it any more"),
        ({"lock_hash": "sha256:another"}, "lock_hash", "not the one it was trained with"),
    ],
)
def test_the_link_that_is_broken_is_named(recorded: Recorded, params: dict[str, str], link: str, told: str) -> None:
    found = broken(recorded, **params)
    assert found["broken"] == link
    assert found["message"].startswith(f"broken at {link}: recorded ")
    assert told in found["links"][-1]["told"]
    assert [item["same"] for item in found["links"]].count(False) == 1
    reproduce.tell({**found, "seconds": 1.0})


def test_files_of_an_old_version_that_are_gone_are_counted(recorded: Recorded) -> None:
    path = Path(lake.open_table("features.customers", 0).file_uris()[0].removeprefix("file://"))
    kept = path.read_bytes()
    path.unlink()
    try:
        found = broken(recorded)
    finally:
        path.write_bytes(kept)
    assert found["broken"] == "data_version"
    assert found["links"][-1]["rebuilt"].startswith("1 of its ")


def test_another_release_under_the_same_number(recorded: Recorded, shop_home: Path) -> None:
    path = shop_home / "releases" / "churn" / "000001.json"
    kept, release = path.read_text(), releases.read("churn", 1)
    path.unlink()
    manifest = reproduce._manifest(recorded)
    assert manifest["tables"] == {"features.customers": 0, "analytics.orders": 0}, "as far as MLflow names it"
    assert manifest["as_of"] == "1998-06-30"
    releases.publish(replace(release, tables={**release.tables, "features.customers": 7}))
    try:
        assert broken(recorded)["broken"] == "release"
    finally:
        files.write_whole(path, kept)


def test_a_command_that_fails_in_the_rebuild_is_told_with_its_words(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rebuild, "python_for", lambda made: Path("/bin/false"))
    found = broken(recorded)
    assert (found["broken"], found["links"][-1]["rebuilt"]) == (
        "rebuild",
        "plumb dataset --release 1 ended with exit code 1:",
    )


def test_an_interrupted_reproduction_leaves_nothing_and_a_killed_one_is_cleared_by_the_next(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = rebuild.worktree(HEAD, "killed", keep=False)
    left = killed.__enter__()
    assert (left.code / "pyproject.toml").exists()

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Rebuild, "plumb", interrupted)
    with pytest.raises(KeyboardInterrupt):
        reproduce._reproduce(recorded, keep=False)
    assert not list((settings().home / "tmp").glob("reproduce-*"))
    monkeypatch.setattr(rebuild, "_remove", lambda folder: None)  # the first one was killed, it cleans up nothing


def test_what_is_kept_stays_until_it_is_made_again(recorded: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rebuild, "python_for", lambda made: Path("/bin/false"))
    kept = Path(reproduce._reproduce(recorded, keep=True)["kept"])
    assert (kept / "code" / "pyproject.toml").exists() and (kept / "home").is_dir()
    assert reproduce._reproduce(recorded, keep=False)["kept"] is None
    assert not kept.exists()


def compared(recorded: Recorded, made: Rebuild) -> tuple[Chain, dict[str, bool]]:
    chain = Chain()
    reproduce._compare(chain, recorded, made)
    return chain, {link.name: link.same for link in chain.links}


def test_the_same_is_the_same_to_the_last_bit(recorded: Recorded, made: Rebuild) -> None:
    chain, links = compared(recorded, made)
    assert chain.broken is None
    assert {"dataset_hash", "params", "metrics", "model bytes"} < set(links)
    assert any(name.endswith(" predictions") for name in links)


def test_another_value_in_the_dataset_is_found_by_its_hash(recorded: Recorded, made: Rebuild) -> None:
    path = made.home / "training" / "churn" / "1" / "dataset.parquet"
    stored = canonical.from_parquet(path.read_bytes())
    rows = stored.to_pandas()
    rows.loc[rows.index[17], "orders_total"] += 1
    path.write_bytes(canonical.to_parquet(canonical.table(rows, stored.schema, canonical.key(CHURN))))
    chain, links = compared(recorded, made)
    assert chain.broken is not None and chain.broken.name == "dataset_hash"
    assert chain.broken.told == "as many rows of the same days and features, other values"
    assert links["model bytes"]


def test_another_model_is_found_by_its_bytes_and_by_what_it_says(recorded: Recorded, made: Rebuild) -> None:
    from training import datasets

    data = datasets.load(Place(CHURN, 1))
    other = model.fit(data.part(test=False), data.features, model.Params(seed=3))
    other.save_model(made.home / "mlflow" / "model.ubj")
    run = files.read_json(made.home / "training" / "churn" / "1" / "run.json") or {}
    run["params"]["seed"] = 3
    files.write_whole(made.home / "training" / "churn" / "1" / "run.json", files.dumps(run))
    chain, links = compared(recorded, made)
    assert [name for name, same in links.items() if not same] == [
        "params", "model bytes", f"{len(data.part(test=True)):,} predictions",
    ]  # fmt: skip
    assert "differ: {'seed': 3}" in next(link.rebuilt for link in chain.links if link.name == "params")
    assert "apart" in chain.links[-1].told


def test_sealed_folders_cannot_be_opened_and_the_code_is_the_right_one(tmp_path: Path) -> None:
    closed, code = tmp_path / "closed", tmp_path / "code"
    (code / "plumbline").mkdir(parents=True)
    (code / "plumbline" / "__init__.py").touch()
    (code / "plumb").mkdir()
    (code / "plumb" / "__init__.py").touch()
    closed.mkdir()
    (closed / "secret").write_text("the answer")
    (tmp_path / "link").symlink_to(closed / "secret")
    (code / "plumb" / "__main__.py").write_text(
        "import os, pathlib, sqlite3, sys\n"
        "closed = pathlib.Path(sys.argv[1])\n"
        "tries = {'open': lambda: (closed / 'secret').read_text(), 'fd': lambda: os.open(closed / 'secret', 0),\n"
        "         'list': lambda: os.listdir(closed), 'scan': lambda: os.scandir(closed),\n"
        "         'link': lambda: open(closed.parent / 'link'), 'sqlite': lambda: sqlite3.connect(closed / 'db')}\n"
        "for name, attempt in tries.items():\n"
        "    try: attempt(); print(name, 'opened')\n"
        "    except PermissionError as refused: print(name, str(refused)[:6])\n"
        "print(open(closed.parent / 'open').read())\n"
    )
    (tmp_path / "open").write_text("read")
    command = [sys.executable, sealed.__file__, str(code), str(closed), "--", str(closed)]
    told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.splitlines()
    assert told == [*(f"{name} sealed" for name in ("open", "fd", "list", "scan", "link", "sqlite")), "read"]
    other = [sys.executable, sealed.__file__, str(tmp_path / "nowhere"), str(closed), "--", "settings"]
    wrong = subprocess.run(other, capture_output=True, text=True, check=False, timeout=60)
    assert wrong.returncode == 1 and "expected it below" in wrong.stderr
