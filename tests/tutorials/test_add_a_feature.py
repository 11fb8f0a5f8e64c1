"""The tutorial, word for word: its diffs applied and its commands run in a copy of the tree, its output compared."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from plumbline.settings import ROOT
from tests.tree import copy
from tests.tree import environment as of_tree
from tests.tutorials import tutorial

TUTORIAL = ROOT / "docs" / "tutorials" / "add-a-feature.md"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return copy(tmp_path / "tree")


@pytest.fixture
def environment(tree: Path, spark_address: str) -> Iterator[dict[str, str]]:
    """The copy's code in this tree's environments, in the page's home; Spark is the shared one, the rest is stopped."""
    assert 'export PLUMBLINE_HOME="$PWD/.plumbline/tutorial"\n' in TUTORIAL.read_text(), "each block has its own bash"
    environment = {**of_tree(tree, tree / ".plumbline" / "tutorial"), "SPARK_REMOTE": spark_address}
    yield environment
    subprocess.run(["plumb", "down"], cwd=tree, env=environment, check=True, timeout=120)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(3600)
def test_every_command_and_diff_does_what_the_tutorial_says(tree: Path, environment: dict[str, str]) -> None:
    assert tutorial.run(TUTORIAL.read_text(), tree, environment) >= 10
