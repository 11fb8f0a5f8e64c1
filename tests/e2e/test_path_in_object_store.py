"""The churn path with lake, state and artifacts in a real S3 server: its home holds caches alone, and may be deleted.

Two places run the same commands at once, on the same shop of every twentieth customer of CDNOW. Day 1 is 1997-09-30,
the first on which a model can be trained, day 2 the one after it. One place is a home of files, where nothing goes
wrong. The other one is in S3: there `features` and its Spark server die by SIGKILL in mid-write on day 1, and the home
is deleted before day 2 begins. MLflow's database, the signing key and the shop are files outside both homes.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ingestion.churn import cdnow as shop
from plumbline.lake import tables as lake
from plumbline.servers import services
from plumbline.settings import settings
from plumbline.state import ledger, objects, releases, trainings
from tests import tree
from tests.e2e.test_kill_and_resume import TABLES, content, online
from tests.e2e.test_scheduler import some_orders
from tests.object_store import S3Server

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(2400)]

DAYS = ("1997-09-30", "1997-10-01")
CLOCKS = ("1997-10-01T00:00:00Z", "1997-10-02T00:00:00Z")
DAILY = ("ingest", "dbt_run", "ge_check", "features", "activity", "distribution_check", "release")
ONLINE = ("materialize", "parity_check")
TRAINING = ("lineage_check", "dataset", "leakage_check", "train", "register", "deploy")
LEASE_SECONDS = 10
READ = (
    ("releases", "releases", "list", "--json"),
    ("lineage", "lineage", "champion"),
    ("quarantine", "quarantine", "list"),
    ("report", "report"),
    ("reproduced", "reproduce", "model:1", "--json"),
)
"""What is asked of day 1 in an empty home: a name, and the command."""


@dataclass
class Place:
    """A home and the environment of its commands; `seconds` sums up those that no kill disturbed."""

    home: Path
    code: Path
    env: dict[str, str]
    day: int = 0
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        return {**tree.environment(self.code, self.home), **self.env, "PLUMBLINE_NOW": CLOCKS[self.day]}

    def begin(self, *command: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "plumb", *command],
            cwd=self.code, env=self.environment, text=True, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def plumb(self, *command: str, timed: bool = True) -> str:
        begun = time.monotonic()
        process = self.begin(*command)
        try:
            told = process.communicate(timeout=400)[0]
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        assert process.returncode == 0, f"{command}: {told[-6000:]}"
        if timed:
            self.seconds[f"{command[0]} {DAYS[self.day]}"] = time.monotonic() - begun
        return told

    def run(self, *stages: str) -> None:
        for stage in stages:
            self.plumb(stage, *(("--as-of", DAYS[self.day]) if stage in DAILY else ()))

    @contextmanager
    def entered(self) -> Iterator[None]:
        """This process reads and stops as a command of the place does."""
        with pytest.MonkeyPatch.context() as patch:
            for name in [name for name in os.environ if name.startswith(("AWS_", "PLUMBLINE_", "SPARK_"))]:
                patch.delenv(name)
            for name, value in self.environment.items():
                if name.startswith(("AWS_", "PLUMBLINE_")):
                    patch.setenv(name, value)
            settings.cache_clear()
            try:
                yield
            finally:
                settings.cache_clear()
        settings.cache_clear()

    def stop(self) -> None:
        with self.entered():
            services.stop_all()


@dataclass
class Flow:
    """What both places came to, for the tests to look at."""

    on_files: Place
    in_s3: Place
    seen: dict[str, Any]


@pytest.fixture(scope="module")
def flow(s3_server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flow]:
    folder = tmp_path_factory.mktemp("path")
    code = folder / "code"
    code.mkdir()
    tree.copy(code)
    shared = {
        "PLUMBLINE_SHOP_URL": f"sqlite:///{folder / 'shop.sqlite'}",
        "PLUMBLINE_SIGNING_KEY": str(signing_key(folder)),
        "PLUMBLINE_SPARK_MEMORY": "1g",
    }
    url = s3_server.fresh_url()
    bucket = {
        **s3_server.env,
        "PLUMBLINE_LAKE": f"{url}/lake",
        "PLUMBLINE_STATE": f"{url}/state",
        "PLUMBLINE_ARTIFACTS": f"{url}/artifacts",
        "PLUMBLINE_MLFLOW_URL": f"sqlite:///{folder / 'mlflow.db'}",
        "PLUMBLINE_LEASE_SECONDS": str(LEASE_SECONDS),
    }
    on_files = Place(folder / "files", code, shared)
    in_s3 = Place(folder / "home", code, {**shared, **bucket})
    found = Flow(on_files, in_s3, {})
    try:
        with on_files.entered():
            shop.load(some_orders(folder, date.fromisoformat(DAYS[1])))
        day_1(found)
        day_2(found)
        yield found
    finally:
        for place in (in_s3, on_files):
            place.stop()


def day_1(flow: Flow) -> None:
    """Both places at once, up to a champion; a kill in the one in S3, and then its home is gone."""

    def in_s3() -> None:
        flow.in_s3.run("ingest", "dbt_run", "ge_check")
        flow.seen["killed"] = killed_in_mid_write(flow.in_s3, "features", "features/customers")
        flow.in_s3.plumb("features", "--as-of", DAYS[0], timed=False)
        flow.in_s3.run("activity", "distribution_check", "release", *ONLINE, *TRAINING)

    at_once(in_s3, lambda: flow.on_files.run(*DAILY, *ONLINE, *TRAINING))
    flow.seen["day 1 on files"], flow.seen["day 1 in S3"] = outcome(flow.on_files), outcome(flow.in_s3)
    flow.seen["commits"] = commits(flow.in_s3)
    flow.in_s3.stop()
    home = flow.in_s3.home
    flow.seen["home"] = sorted(str(path.relative_to(home)) for path in home.rglob("*") if path.is_file())
    shutil.rmtree(home)


def day_2(flow: Flow) -> None:
    """The next day in both places; in S3 from an empty home, beside what reads day 1 or makes its model again."""
    flow.in_s3.day = flow.on_files.day = 1

    def reading() -> None:
        for name, *command in READ:
            flow.seen[name] = flow.in_s3.plumb(*command, timed=False)

    at_once(
        lambda: flow.in_s3.run(*DAILY, *ONLINE),
        lambda: flow.on_files.run(*DAILY, *ONLINE),
        reading,
    )
    flow.seen["day 2 on files"], flow.seen["day 2 in S3"] = rows(flow.on_files), rows(flow.in_s3)
    flow.seen["commits"] = commits(flow.in_s3)
    flow.seen["undone"] = flow.in_s3.plumb("releases", "undo", "--why", "a test")


def at_once(*work: Callable[[], None]) -> None:
    """Each in a thread; the first error of any is raised when all have ended."""
    with ThreadPoolExecutor(len(work)) as threads:
        for each in [threads.submit(one) for one in work]:
            each.result()


def signing_key(folder: Path) -> Path:
    """A private key of its own."""
    path = folder / "signing.pem"
    made = ec.generate_private_key(ec.SECP256R1())
    path.touch(0o600)
    path.write_bytes(
        made.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return path


def rows(place: Place) -> dict[str, Any]:
    """What must not depend on where a day's tables are: rows by their content, versions, what is in Redis."""
    with place.entered():
        release = releases.required("churn")
        return {
            "release": (release.release_id, release.base, str(release.as_of), release.rejected),
            "versions": release.tables,
            "online": online(),
            **{table: content(table, release.version(table)) for table in TABLES},
        }


def outcome(place: Place) -> dict[str, Any]:
    """The same of the day of the training, and the dataset and the model."""
    found = rows(place)
    with place.entered():
        run = objects.read_json(trainings.key("churn", 1, trainings.RUN)) or {}
        about = objects.read_json(trainings.key("churn", 1, trainings.ABOUT)) or {}
    return {
        **found,
        "dataset": about["content_hash"],
        "model": run["model_sha256"],
        "metrics": run["metrics"],
    }


def below(place: Place, folder: str) -> set[str]:
    """The keys of the lake's objects in a folder."""
    import obstore
    from obstore.store import S3Store

    bucket, _, prefix = place.env["PLUMBLINE_LAKE"].removeprefix("s3://").partition("/")
    keys = {name.lower(): value for name, value in place.env.items() if name.startswith("AWS_")}
    store = S3Store(bucket, prefix=prefix, client_options={"allow_http": True}, **keys)
    return {each["path"] for page in obstore.list(store, folder) for each in page}


def is_commit(key: str) -> bool:
    return "/_delta_log/" in key and key.endswith(".json")


def killed_in_mid_write(place: Place, stage: str, table: str) -> dict[str, set[str]]:
    """Kills a stage and its Spark server once the first data file of a table is in S3: what was written by then."""
    known = below(place, table)
    process = place.begin(stage, "--as-of", DAYS[place.day])
    try:
        deadline = time.monotonic() + 300
        while not [key for key in below(place, table) - known if key.endswith(".parquet")]:
            assert process.poll() is None and time.monotonic() < deadline, process.communicate()[0]
        os.killpg(json.loads((place.home / "spark.json").read_text())["pid"], signal.SIGKILL)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    new = below(place, table) - known
    return {"data": {key for key in new if key.endswith(".parquet")}, "commits": set(filter(is_commit, new))}


def commits(place: Place) -> dict[str, list[int]]:
    """Table → the numbers of its commits."""
    found: dict[str, list[int]] = {}
    for table in TABLES:
        log = filter(is_commit, below(place, table.replace(".", "/")))
        found[table] = sorted(int(Path(key).stem) for key in log)
    return found


def test_a_home_holds_nothing_but_caches(flow: Flow) -> None:
    found = flow.seen["home"]
    state = ("lake", "releases", "ledger", "evidence", "leases", "candidates", "quarantine", "keys", "mlflow")
    assert found and not [name for name in found if name.split("/")[0] in (*state, "lineage.ndjson", "shop.sqlite")]
    drawn = [name for name in found if name.startswith("training/")]
    assert all("/plots/" in name for name in drawn), f"MLflow has plots too, and nothing else may lie here: {drawn}"


def test_an_empty_home_goes_on_with_the_next_day(flow: Flow) -> None:
    assert flow.seen["day 2 in S3"]["release"] == (2, 1, DAYS[1], [])
    assert flow.seen["day 2 in S3"] == flow.seen["day 2 on files"]


def test_what_day_1_left_is_read_from_an_empty_home(flow: Flow) -> None:
    first, *_ = json.loads(flow.seen["releases"].splitlines()[-1])
    assert (first["release_id"], first["as_of"]) == (1, DAYS[0])
    for upstream in ("models.churn_xgb@1", "features.customers@0", "raw.orders@0", "shop.orders"):
        assert f"← {upstream}" in flow.seen["lineage"], flow.seen["lineage"]
    assert "nothing was kept out" in flow.seen["quarantine"], flow.seen["quarantine"]
    assert "report/churn/index.html" in flow.seen["report"], flow.seen["report"]
    with flow.in_s3.entered():
        assert [key for key in objects.keys("evidence") if DAYS[0] in key]


def test_a_release_is_undone(flow: Flow) -> None:
    assert "release 3 is in force: release 1's tables" in flow.seen["undone"], flow.seen["undone"]
    with flow.in_s3.entered():
        release = releases.required("churn")
        assert (release.release_id, release.restores, release.undoes) == (3, 1, [2])
        assert release.tables == releases.read("churn", 1).tables
        ended = [event for event in ledger.events("churn") if event["state"] == "COMPLETE"]
        assert {event["stage"] for event in ended} == {*DAILY, *ONLINE, *TRAINING, "undo", "reproduce"}


def test_a_model_is_made_again_byte_for_byte(flow: Flow) -> None:
    told = json.loads(flow.seen["reproduced"].splitlines()[-1])
    assert told["broken"] is None, told
    links = {link["name"]: link for link in told["links"]}
    assert {"code_sha", "data_version", "release", "dataset_hash", "metrics", "model bytes"} < set(links)


def test_a_stage_that_is_killed_in_mid_write_is_run_again(flow: Flow) -> None:
    killed = flow.seen["killed"]
    assert killed["data"] and not killed["commits"], "it was killed after data was written and before it was committed"
    with flow.in_s3.entered():
        for table, found in flow.seen["commits"].items():
            assert found == list(range(len(found))), f"{table} lacks a commit: {found}"
            assert lake.version(table) == found[-1]
        named = set()
        for version in flow.seen["commits"]["features.customers"]:
            named |= {unquote(uri) for uri in lake.open_table("features.customers", version).file_uris()}
        orphans = {unquote(f"{flow.in_s3.env['PLUMBLINE_LAKE']}/{key}") for key in killed["data"]}
        assert named and not named & orphans, "no version names what the killed one wrote"


def test_dataset_and_model_are_those_of_a_run_on_files(flow: Flow, capsys: pytest.CaptureFixture[str]) -> None:
    on_files, in_s3 = flow.seen["day 1 on files"], flow.seen["day 1 in S3"]
    assert in_s3 == on_files
    common = sorted(name for name in set(flow.on_files.seconds) & set(flow.in_s3.seconds) if DAYS[0] in name)
    told = {name: sum(place.seconds[each] for each in common)
            for name, place in (("files", flow.on_files), ("S3", flow.in_s3))}  # fmt: skip
    with capsys.disabled():
        print(f"\n{len(common)} commands of day 1: {told['files']:.0f} s on files, {told['S3']:.0f} s in S3")
