"""The tutorial, word for word: its diffs applied and its commands run in a copy of the tree, its output compared."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from plumbline.settings import ROOT
from tests.tree import copy
from tests.tree import environment as of_tree

TUTORIAL = ROOT / "docs" / "tutorials" / "add-a-feature.md"
BLOCK = re.compile(r"^```(sh|diff|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def shown(line: str) -> re.Pattern[str]:
    """A line of the tutorial as a pattern: `…` stands for anything, blanks for any blanks."""
    parts = [re.escape(" ".join(part.split())) for part in line.split("…")]
    return re.compile(".*".join(part.replace(r"\ ", r"\s+") for part in parts))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return copy(tmp_path / "tree")


@pytest.fixture
def environment(tree: Path) -> Iterator[dict[str, str]]:
    """The copy's code in this tree's environments, in the page's home; what was started is stopped."""
    assert 'export PLUMBLINE_HOME="$PWD/.plumbline/tutorial"\n' in TUTORIAL.read_text(), "each block has its own bash"
    environment = of_tree(tree, tree / ".plumbline" / "tutorial")
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
