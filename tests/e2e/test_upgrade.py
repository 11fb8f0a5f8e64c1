"""A home that the release before this one made goes on with this code: `make test-long`.

The commit of that release is checked out beside, gets environments of its own from the same cache, and makes a day, a
model and its champion. The code here then reads all of it, does the same day again, and the next one.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from plumbline.settings import ROOT
from products.churn import CHURN

pytestmark = [pytest.mark.long, pytest.mark.servers, pytest.mark.timeout(1800)]

BEFORE = "8d0c644"
"""The commit of the release before this one."""

DAY, NEXT = "1998-05-31", "1998-06-30"


@dataclass
class Code:
    """A checkout's commands on the home."""

    root: Path
    home: Path

    def plumb(self, *command: str) -> str:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PLUMBLINE_")}
        environment |= {"PLUMBLINE_HOME": str(self.home), "PLUMBLINE_CACHE": str(ROOT / ".plumbline" / "cache")}
        environment |= {"PLUMBLINE_NOW": f"{NEXT}T23:59:59Z", "PYTHONPATH": str(self.root)}
        done = subprocess.run(
            [str(self.python), "-m", "plumb", *command],
            cwd=self.root,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{command} of {self.root.name}: {done.stdout[-1500:]}\n{done.stderr[-2500:]}"
        return done.stdout

    @property
    def python(self) -> Path:
        found = self.root / ".plumbline" / "venvs" / "pipeline" / "bin" / "python"
        return found if found.exists() else Path(sys.executable)

    def day(self, day: str) -> None:
        """Every stage of a day's run; behind the release they take the one in force."""
        for stage in CHURN.daily_stages:
            self.plumb(stage, *(() if stage in ("materialize", "parity_check") else ("--as-of", day)))

    def model(self) -> None:
        """A dataset of the release in force, judged, and a model of it, registered."""
        for stage in ("dataset", "leakage_check", "train", "register"):
            self.plumb(stage)

    def json(self, *command: str) -> Any:
        return json.loads(self.plumb(*command, "--json"))


@pytest.fixture(scope="module")
def codes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Code, Code]]:
    """The release before, and this one, on one home."""
    place = tmp_path_factory.mktemp("upgrade")
    before, home = place / "before", place / "home"
    subprocess.run(
        ["git", "worktree", "add", "--detach", str(before), BEFORE], cwd=ROOT, check=True, capture_output=True
    )
    environment = {**os.environ, "PLUMBLINE_CACHE": str(ROOT / ".plumbline" / "cache")}
    environment.pop("PLUMBLINE_HOME", None)
    codes = Code(before, home), Code(ROOT, home)
    try:
        command = [sys.executable, "-I", "toolchain/bootstrap.py"]
        subprocess.run(command, cwd=before, env=environment, check=True, capture_output=True)
        yield codes
    finally:
        codes[1].plumb("down")
        subprocess.run(["git", "worktree", "remove", "--force", str(before)], cwd=ROOT, check=False)
        shutil.rmtree(home, ignore_errors=True)


def test_what_the_release_before_made_is_served_judged_and_continued(codes: tuple[Code, Code]) -> None:
    before, after = codes
    before.plumb("shop", "load", "--one-in", "2")
    before.day(DAY)
    before.model()
    before.plumb("deploy")
    released = before.json("releases", "show")
    model = before.json("reproduce")
    before.plumb("down")

    assert after.json("releases", "show") == released
    assert after.json("reproduce")["model_sha256"] == model["model_sha256"]
    after.day(DAY)
    assert after.json("releases", "show") == released, "the same day again is no new release"
    after.plumb("lineage_check")
    after.day(NEXT)
    assert after.json("releases", "show")["release_id"] == released["release_id"] + 1
    after.model()
