"""The drill ground of a product: a home in which its path ran on real data, brought back to that state for each drill.

`<home>/drills/<product>/home` is always at the same place, because MLflow keeps absolute ones; what it is brought back
from is `<home>/drills/<product>/baseline`: some days released, a model that serves, everything online. The drills' day
is the one after.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from plumb.demo import demo
from plumbline import files, provenance
from plumbline.lake import spark
from plumbline.orchestration import airflow
from plumbline.orchestration.airflow import Airflow, AirflowError
from plumbline.product import Product
from plumbline.progress import say
from plumbline.servers import services
from plumbline.settings import ROOT, settings
from serving import client


@dataclass(frozen=True)
class Ground:
    """What the drills of one product stand on.

    `comes` brings a day's data and sets the clock to its end; `one` chooses, on the baseline, what the predictor is
    asked, `newest` what only the day's release answers, and `said` takes from an answer what a fault must not change;
    `lost` counts what was sent and is not once in the release in force. `anew` says that each release writes every row
    online, not the new ones alone.
    """

    product: Product
    eves: tuple[date, ...]
    day: date
    counted: str
    about: str
    comes: Callable[[date], None]
    one: Callable[[], dict[str, Any]]
    newest: Callable[[], dict[str, Any]]
    anew: bool
    said: Callable[[dict[str, Any]], dict[str, Any]]
    lost: Callable[[], int]
    settings: Callable[[Path], dict[str, str]] = lambda home: {}

    @property
    def dags(self) -> tuple[str, ...]:
        """The DAGs of a day, in their order."""
        return tuple(dict.fromkeys((self.product.daily, self.product.training)))

    @contextmanager
    def taken(self) -> Iterator[Path]:
        """Makes the ground the home of this process, with one Spark server for all its drills; gives its folder."""
        folder = settings().home / "drills" / self.product.name
        cache, before = settings().cache, dict(os.environ)
        for name in [name for name in os.environ if name.startswith("PLUMBLINE_")]:
            del os.environ[name]
        os.environ |= {"PLUMBLINE_CACHE": str(cache), "PLUMBLINE_HOME": str(folder / "spark")}
        settings.cache_clear()
        try:
            with files.locked(folder / "drills.lock", wait=False, held="other drills are at work"):
                os.environ["SPARK_REMOTE"] = spark.server_url()
                self._use(folder / "home")
                self._prepare(folder)
                yield folder
        finally:
            os.environ.pop("PLUMBLINE_LAKE", None)
            os.environ.pop("SPARK_REMOTE", None)
            for home in (folder / "home", folder / "spark"):
                self._use(home)
                services.stop_all()
            os.environ.clear()
            os.environ.update(before)
            settings.cache_clear()

    def reset(self, folder: Path, name: str) -> None:
        """Brings the ground back to the baseline. The lake gets a path of its own: Spark remembers what lay at one."""
        home = folder / "home"
        services.stop_all(grace=0)  # what they hold is thrown away
        shutil.rmtree(home, ignore_errors=True)
        shutil.copytree(folder / "baseline", home)
        lake = home / f"lake-{name}"
        (home / "lake").rename(lake)
        self._use(home, lake=str(lake), retry_seconds="5")

    def run(self, dag: str | None = None, day: date | None = None, within: Airflow | None = None) -> bool:
        """Runs a DAG (default: the day's), in that Airflow or in one of its own.

        True when it came to its end, False when a task stopped it.
        """
        chosen, of = dag or self.product.daily, day or self.day
        asked = [(chosen, of.isoformat() if chosen == self.product.daily else None)]
        try:
            for _ in within.run(asked) if within else airflow.run(asked):
                pass
        except AirflowError:
            return False
        return True

    def _use(self, home: Path, **more: str) -> None:
        """Makes `home` the home of this process and of the commands it starts, with further settings."""
        os.environ["PLUMBLINE_HOME"] = str(home)
        for name, value in {**self.settings(home), **more}.items():
            os.environ[f"PLUMBLINE_{name.upper()}"] = value
        settings.cache_clear()

    def _prepare(self, folder: Path) -> None:
        """Builds the baseline, unless the same code and environment built it already."""
        stamp, made_by = folder / "baseline.stamp", f"{provenance.code_sha()} {provenance.lock_hash()}"
        if stamp.exists() and stamp.read_text() == made_by:
            return
        say(f"building the baseline of {self.product.name}: {self.about} (some minutes)")
        services.stop_all()
        for old in ("home", "baseline"):
            shutil.rmtree(folder / old, ignore_errors=True)
        with demo.following_ledger(self.product.name):
            for day in self.eves:
                self.comes(day)
                for dag in self.dags:
                    if not self.run(dag, day):
                        demo.raise_what_failed(self.product.name)
                        raise client.DemoError(f"{dag} did not come to its end: see {settings().home}/logs/airflow.log")
        services.stop_all()
        shutil.copytree(folder / "home", folder / "baseline")
        files.write_whole(stamp, made_by)


def tree(ground: Path) -> Path:
    """Where the changed copy of this tree lies."""
    return ground / "tree"


def another_tree(ground: Path, change: Callable[[Path], None]) -> None:
    """Makes a copy of this tree, a repository of its own, with a change that somebody made to its files."""
    copy = tree(ground)
    shutil.rmtree(copy, ignore_errors=True)
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, copy / name)
    change(copy)
    who = ["-c", "user.name=drill", "-c", "user.email=drill@localhost"]
    for command in (["init", "-q"], ["add", "-A"], [*who, "commit", "-q", "-m", "A change, for a drill"]):
        subprocess.run(["git", *command], cwd=copy, check=True)
