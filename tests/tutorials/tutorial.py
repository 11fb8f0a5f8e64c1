"""A page run word for word: its commands and diffs in a copy of the tree, its shown output compared."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

BLOCK = re.compile(r"^```(sh|diff|text|sql)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def shown(line: str) -> re.Pattern[str]:
    """A line of the tutorial as a pattern: `…` stands for anything, blanks for any blanks."""
    parts = [re.escape(" ".join(part.split())) for part in line.split("…")]
    return re.compile(".*".join(part.replace(r"\ ", r"\s+") for part in parts))


def run(text: str, tree: Path, environment: dict[str, str], sql: Callable[[str], object] | None = None) -> int:
    """Runs each block of a page in its order; how many commands it ran. `sql` runs statements in the shop."""
    said, ran = "", 0
    for kind, block in BLOCK.findall(text):
        if kind == "diff":
            subprocess.run(["git", "apply", "-"], cwd=tree, input=block, text=True, check=True)
        elif kind == "sql":
            assert sql is not None
            sql(block)
        elif kind == "sh":
            done = subprocess.run(
                ["bash", "-e", "-c", block], cwd=tree, env=environment, text=True, timeout=1800, check=False,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )  # fmt: skip
            said, ran = done.stdout, ran + 1
            assert done.returncode == 0, f"{block}\n{said[-4000:]}"
        else:
            for line in filter(str.strip, block.splitlines()):
                assert any(shown(line).search(" ".join(got.split())) for got in said.splitlines()), (
                    f"the tutorial shows {line!r}; found:\n{said[-4000:]}"
                )
    return ran
