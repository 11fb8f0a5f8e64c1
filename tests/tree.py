"""A copy of this tree in a git repository of its own, for tests that change code as a contributor would."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from plumbline.settings import ROOT
from tests.conftest import inherited


def copy(to: Path) -> Path:
    """The files that git knows or would take, committed once."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        if (ROOT / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            (to / name).write_bytes((ROOT / name).read_bytes())
    who = ["-c", "user.name=contributor", "-c", "user.email=contributor@localhost"]
    for command in (["init", "-q"], ["add", "-A"], [*who, "commit", "-q", "-m", "The tree"]):
        subprocess.run(["git", *command], cwd=to, check=True)
    return to


def environment(tree: Path, home: Path) -> dict[str, str]:
    """The copy's code in this tree's environments, with a home of its own."""
    path = f"{Path(sys.prefix) / 'bin'}:{os.environ['PATH']}"
    found = {**inherited(), "PLUMBLINE_HOME": str(home), "PYTHONPATH": str(tree), "PATH": path}
    found.pop("PLUMBLINE_NOW", None)
    return found


def changed(tree: Path) -> list[str]:
    """The files that differ from the copy's commit, new ones too."""
    told = subprocess.run(
        ["git", "status", "--porcelain", "--untracked-files=all"], cwd=tree, capture_output=True, text=True, check=True
    ).stdout
    return sorted(line[3:] for line in told.splitlines())
