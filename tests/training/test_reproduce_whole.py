"""Last week's model made again, byte for byte, after new data and a change of the code; and when the lake forgot it."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from plumbline.lake import tables as lake
from plumbline.settings import ROOT
from tests.conftest import inherited
from tests.training.churn import made_up_shop as made
from training.churn import split

WHO = ["-c", "user.name=test", "-c", "user.email=test@localhost"]


class Tree:
    """The files of this tree in a git repository of their own, with a home; commands run with its code."""

    def __init__(self, folder: Path, home: Path) -> None:
        self.folder = folder
        listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        for name in filter(None, names.split("\0")):
            if (ROOT / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes((ROOT / name).read_bytes())
        self.git("init", "-q")
        self.commit("The tree")
        self.env = {**inherited(), "PYTHONPATH": str(folder), "PLUMBLINE_HOME": str(home)}
        self.env |= {"PLUMBLINE_SPARK_IN_PROCESS": "true"}

    def git(self, *arguments: str) -> str:
        command = ["git", *WHO, *arguments]
        return subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=True).stdout.strip()

    def commit(self, message: str) -> str:
        self.git("add", "-A")
        self.git("commit", "-q", "-m", message)
        return self.git("rev-parse", "HEAD")

    def plumb(self, *command: str, code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "plumb", *command],
            cwd=self.folder, env=self.env, capture_output=True, text=True, check=False, timeout=500,
        )  # fmt: skip
        assert done.returncode == code, done.stderr[-4000:] + done.stdout[-2000:]
        return done.stdout


@pytest.fixture
def tree(home: Path, tmp_path: Path) -> Tree:
    return Tree(tmp_path / "tree", home)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_last_weeks_run_is_made_again_byte_for_byte(tree: Tree, home: Path) -> None:
    from deltalake import write_deltalake

    orders = made.simulate_orders(150)
    days = split.choose(made.WEEKLY, made.AS_OF).days
    near = sorted({made.WEEKLY[0], *days, *(day + timedelta(weeks=w) for day in days for w in (-1, 1))})
    made.write_lake(orders, near)
    made.publish(1)
    trained = tree.git("rev-parse", "HEAD")
    for command in ("dataset", "leakage_check", "train", "register"):
        tree.plumb(command)
    (run_id,) = {json.loads(path.read_text())["mlflow_run_id"] for path in home.glob("training/churn/1/run.json")}

    # A week of new data in the same tables, a new release, and another model in the code on main.
    late = orders.assign(order_id=orders["order_id"] + 1_000_000, total_cents=orders["total_cents"] + 1)
    write_deltalake(lake.uri("analytics.orders"), made.orders_table(late), mode="append")
    features = made.snapshot_table(late, near)
    write_deltalake(lake.uri("features.customers"), features, mode="overwrite", partition_by=["snapshot_date"])
    made.publish(2)
    path = tree.folder / "training" / "churn" / "model.py"
    path.write_text(path.read_text().replace('rounds: int = _stated("rounds")', "rounds: int = 7"))
    assert tree.commit("Another model") != trained
    # What is stored is not what the rebuild starts from.
    (home / "training" / "churn" / "1" / "dataset.parquet").unlink()

    told: dict[str, Any] = json.loads(tree.plumb("reproduce", "model:1", "--json").splitlines()[-1])
    assert told["broken"] is None, told
    links = {link["name"]: link["rebuilt"] for link in told["links"]}
    assert (told["mlflow_run_id"], links["code_sha"]) == (run_id, trained)
    assert {"lock_hash", "data_version", "dataset_hash", "params", "metrics", "model bytes"} < set(links)
    assert not list((home / "tmp").glob("reproduce-*")) and len(tree.git("worktree", "list").splitlines()) == 1
    assert "byte for byte" in told["message"]

    # A vacuum takes away what the run was trained on.
    lake.open_table("features.customers").vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)
    told = json.loads(tree.plumb("reproduce", run_id, "--json", code=1).splitlines()[-1])
    assert told["broken"] == "data_version" and "files are gone" in told["message"]
