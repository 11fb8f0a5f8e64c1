"""The tutorial, word for word: its diffs applied and its commands run in a copy of the tree, its output compared."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from plumbline.settings import ROOT
from tests.conftest import inherited

TUTORIAL = ROOT / "docs" / "tutorials" / "add-a-feature.md"
BLOCK = re.compile(r"^```(sh|diff|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def shown(line: str) -> re.Pattern[str]:
    """A line of the tutorial as a pattern: `…` stands for anything, blanks for any blanks."""
    parts = [re.escape(" ".join(part.split())) for part in line.split("…")]
    return re.compile(".*".join(part.replace(r"\ ", r"\s+") for part in parts))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """The files of this tree in a git repository of their own."""
    tree = tmp_path / "tree"
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        if (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            (tree / name).write_bytes((ROOT / name).read_bytes())
    who = ["-c", "user.name=tutorial", "-c", "user.email=tutorial@localhost"]
    for command in (["init", "-q"], ["add", "-A"], [*who, "commit", "-q", "-m", "The tree"]):
        subprocess.run(["git", *command], cwd=tree, check=True)
    return tree


@pytest.fixture
def environment(tree: Path) -> Iterator[dict[str, str]]:
    """The copy's code in this tree's environments, in the page's home; what was started is stopped."""
    assert 'export PLUMBLINE_HOME="$PWD/.plumbline/tutorial"\n' in TUTORIAL.read_text(), "each block has its own bash"
    path = f"{Path(sys.prefix) / 'bin'}:{os.environ['PATH']}"
    home = tree / ".plumbline" / "tutorial"
    given = {"PLUMBLINE_HOME": str(home), "PYTHONPATH": str(tree), "PATH": path}
    environment = {**inherited(), **given}
    environment.pop("PLUMBLINE_NOW", None)
    yield environment
    subprocess.run(["plumb", "down"], cwd=tree, env=environment, check=True, timeout=120)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_every_command_and_diff_does_what_the_tutorial_says(tree: Path, environment: dict[str, str]) -> None:
    said, ran = "", 0
    for kind, text in BLOCK.findall(TUTORIAL.read_text()):
        if kind == "diff":
            applied = ["git", "apply", "-"]
            subprocess.run(applied, cwd=tree, input=text, text=True, check=True)
        elif kind == "sh":
            command = ["bash", "-e", "-c", text]
            done = subprocess.run(
                command, cwd=tree, env=environment, text=True, timeout=1800, check=False,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )  # fmt: skip
            said, ran = done.stdout, ran + 1
            assert done.returncode == 0, f"{text}\n{said[-4000:]}"
        else:
            for line in filter(str.strip, text.splitlines()):
                assert any(shown(line).search(" ".join(got.split())) for got in said.splitlines()), (
                    f"the tutorial shows {line!r}; found:\n{said[-4000:]}"
                )
    assert ran >= 10
