"""The drill ground: a home in which the churn path ran on real orders, brought back to that state before each drill.

`<home>/drills/home` is always at the same place, because MLflow keeps absolute ones; what it is brought back from is
`<home>/drills/baseline`: real orders up to Monday 1997-10-06, two releases, the first one's model as champion, the
second one's as challenger, everything online. The drills' day is the Tuesday after.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path

from ingestion.churn import cdnow
from plumb.demo import demo
from plumbline import clock, files, provenance
from plumbline.lake import spark
from plumbline.orchestration import airflow
from plumbline.orchestration.airflow import Airflow, AirflowError
from plumbline.progress import say
from plumbline.servers import services
from plumbline.settings import ROOT, settings
from plumbline.state import releases
from products.churn import CHURN
from serving import client

BACKFILL, EVE, DAY = date(1997, 10, 5), date(1997, 10, 6), date(1997, 10, 7)
DAILY, TRAINING = "retail_features", "ml_training_pipeline"
PRODUCT = CHURN.name


@contextmanager
def taken() -> Iterator[Path]:
    """Makes the drill ground the home of this process, with one Spark server for all drills; gives its folder."""
    ground = settings().home / "drills"
    cache, before = settings().cache, dict(os.environ)
    for name in [name for name in os.environ if name.startswith("PLUMBLINE_")]:
        del os.environ[name]
    os.environ |= {"PLUMBLINE_CACHE": str(cache), "PLUMBLINE_HOME": str(ground / "spark")}
    settings.cache_clear()
    try:
        with files.locked(ground / "drills.lock", wait=False, held="other drills are at work"):
            os.environ["SPARK_REMOTE"] = spark.server_url()
            use(ground / "home")
            _prepare(ground)
            yield ground
    finally:
        os.environ.pop("PLUMBLINE_LAKE", None)
        os.environ.pop("SPARK_REMOTE", None)
        for home in (ground / "home", ground / "spark"):
            use(home)
            services.stop_all()
        os.environ.clear()
        os.environ.update(before)
        settings.cache_clear()


def use(home: Path, **more: str) -> None:
    """Makes `home` the home of this process and of the commands it starts, with further settings."""
    os.environ["PLUMBLINE_HOME"] = str(home)
    for name, value in more.items():
        os.environ[f"PLUMBLINE_{name.upper()}"] = value
    settings.cache_clear()


def reset(ground: Path, name: str) -> None:
    """Brings the ground back to the baseline. The lake gets a path of its own: Spark remembers what lay at a path."""
    home = ground / "home"
    services.stop_all(grace=0)  # what they hold is thrown away
    shutil.rmtree(home, ignore_errors=True)
    shutil.copytree(ground / "baseline", home)
    lake = home / f"lake-{name}"
    (home / "lake").rename(lake)
    use(home, lake=str(lake), retry_seconds="5")


def day_comes(day: date, orders: bool = True) -> None:
    """The shop has the real orders up to that day, and the clock stands at its end."""
    if orders:
        cdnow.load(until=day)
    demo.set_clock(clock.end_of(day))


def run(dag: str = DAILY, day: date | None = DAY, within: Airflow | None = None) -> bool:
    """Runs a DAG, in that Airflow or in one of its own; True when it came to its end, False when a task stopped it."""
    asked = [(dag, day.isoformat() if day and dag == DAILY else None)]
    try:
        for _ in within.run(asked) if within else airflow.run(asked):
            pass
    except AirflowError:
        return False
    return True


def _prepare(ground: Path) -> None:
    """Builds the baseline, unless the same code and environment built it already."""
    stamp, made_by = ground / "baseline.stamp", f"{provenance.code_sha()} {provenance.lock_hash()}"
    if stamp.exists() and stamp.read_text() == made_by:
        return
    say(f"building the drills' baseline: real orders up to {EVE}, two releases and their models (about 3 minutes)")
    services.stop_all()
    for old in ("home", "baseline"):
        shutil.rmtree(ground / old, ignore_errors=True)
    with demo.following_ledger():
        for day in (BACKFILL, EVE):
            day_comes(day)
            for dag in (DAILY, TRAINING):
                if not run(dag, day):
                    demo.raise_what_failed()
                    raise client.DemoError(f"{dag} did not come to its end: see {settings().home}/logs/airflow.log")
    services.stop_all()
    shutil.copytree(ground / "home", ground / "baseline")
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


def customer() -> int:
    """A customer of the baseline whose features are all there: the one with most orders."""
    from plumbline.lake import tables as lake

    release = releases.required(PRODUCT)
    orders = lake.open_table("analytics.orders", release.version("analytics.orders")).to_pandas()
    return int(orders.groupby("customer_id").size().idxmax())
