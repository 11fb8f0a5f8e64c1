"""A run's code checked out beside this one, in its own environment, with a home that has nothing of the run.

The lake is the same, read at the recorded versions. Everything else lies in one scratch folder and goes with it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from plumbline import clock, files, provenance
from plumbline.errors import ServiceUnavailable
from plumbline.progress import say
from plumbline.settings import ENVIRONMENTS, PREFIX, ROOT, settings
from training import sealed
from training.errors import TrainingError

NOT_HANDED_ON = (PREFIX, "MLFLOW_", "SPARK_", "FEAST_", "OPENLINEAGE_", "PYTHONPATH", "PYTHONHOME")
"""Beginnings of variables that a rebuild does not get: settings are those of the run, addresses are none of its."""

SCRATCH, KEPT = "reproduce-", "kept"
LAST = 12


class RebuildError(TrainingError):
    """A command of the rebuild ended with an error; the message holds its last lines."""


@dataclass(frozen=True)
class Rebuild:
    """Where a run is made again: `code` is a worktree of its commit, `home` its scratch home."""

    folder: Path

    @property
    def code(self) -> Path:
        return self.folder / "code"

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def lock_hash(self) -> str:
        """Of the checked-out commit's pipeline lock."""
        return f"sha256:{files.sha256((self.code / 'requirements' / 'pipeline.txt').read_bytes())}"

    def plumb(self, python: Path, *command: str) -> None:
        """Runs the commit's own `plumb`, which can open neither this home's datasets nor its MLflow.

        Raises RebuildError when it fails.
        """
        say(f"rebuilding: plumb {' '.join(command)}")
        closed = [str(settings().home / name) for name in ("training", "mlflow")]
        done = subprocess.run(
            [str(python), str(sealed.__file__), str(self.code), *closed, "--", *command],
            cwd=self.code, env=self._environment(), capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            told = "\n    ".join(done.stderr.strip().splitlines()[-LAST:])
            raise RebuildError(f"plumb {' '.join(command)} ended with exit code {done.returncode}:\n    {told}")

    def _environment(self) -> dict[str, str]:
        given = {
            "HOME": str(self.home),
            "CACHE": str(settings().cache),
            "LAKE": settings().lake_uri,
            "SPARK_MEMORY": settings().spark_memory,
            "SPARK_IN_PROCESS": "true",  # it ends with the command, however that ends
        }
        if clock.is_replay():
            given["NOW"] = clock.now().isoformat()
        kept = {name: value for name, value in os.environ.items() if not name.startswith(NOT_HANDED_ON)}
        return {**kept, **{PREFIX + name: value for name, value in given.items()}, "PYTHONPATH": str(self.code)}


def has_commit(sha: str) -> bool:
    """Whether this repository holds the commit."""
    return _git("cat-file", "-e", f"{sha}^{{commit}}", check=False) == 0


@contextmanager
def worktree(sha: str, name: str, keep: bool) -> Iterator[Rebuild]:
    """The commit in a worktree below `<home>/tmp`, removed with all that was made there unless `keep`.

    The caller holds the lease of reproductions: what a killed one left is removed first.
    """
    made = Rebuild(settings().home / "tmp" / f"{SCRATCH}{name}")
    for left in (settings().home / "tmp").glob(f"{SCRATCH}*"):
        if not (left / KEPT).exists() or left == made.folder:
            _remove(left)
    made.home.mkdir(parents=True)
    try:
        _git("worktree", "add", "--force", "--quiet", "--detach", str(made.code), sha)
        yield made
    finally:
        if keep:
            (made.folder / KEPT).touch()
        else:
            _remove(made.folder)


def python_for(made: Rebuild) -> Path:
    """The Python of the commit's environment: this one when the lock is the same, else one made from its own lock."""
    if made.lock_hash == provenance.lock_hash():
        return Path(sys.executable)
    say(f"the commit has another lock ({made.lock_hash[:19]}): installing an environment of its own")
    python = made.folder / "venv" / "bin" / "python"
    (made.folder / "dvc").symlink_to(ENVIRONMENTS / "dvc")  # beside it, where the commit's code looks for DVC
    base = str(getattr(sys, "_base_executable", sys.executable))
    locked = ["--require-hashes", str(made.code / "requirements" / "pipeline.txt")]
    _uv("venv", "--quiet", "--python", base, str(made.folder / "venv"))
    _uv("pip", "sync", "--quiet", "--python", str(python), *locked)
    return python


def _uv(*arguments: str) -> None:
    places = (settings().home / "tools", ENVIRONMENTS.parent / "tools")
    uv = next((place / "bin" / "uv" for place in places if (place / "bin" / "uv").exists()), None)
    if uv is None:
        raise ServiceUnavailable(f"no uv in {' or '.join(map(str, places))}: run `make setup` once")
    done = subprocess.run(
        [str(uv), "--cache-dir", str(settings().cache / "uv"), *arguments],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RebuildError(f"uv {' '.join(arguments[:2])} of the commit's lock failed: {done.stderr.strip()[-800:]}")


def _remove(folder: Path) -> None:
    _git("worktree", "remove", "--force", str(folder / "code"), check=False)
    shutil.rmtree(folder, ignore_errors=True)


def _git(*arguments: str, check: bool = True) -> int:
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise TrainingError("there is no git here: a run is made again where its repository is checked out") from None
    if check and done.returncode:
        raise TrainingError(f"git {' '.join(arguments[:2])} in {ROOT} failed: {done.stderr.strip()[-500:]}")
    return done.returncode
