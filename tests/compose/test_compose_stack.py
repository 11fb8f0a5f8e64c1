"""The compose stack on a real engine: a day of orders to a live answer, a canary, every container killed, parts cut off
from each other, everything thrown away but what Postgres and the S3 server keep.

`make test-compose`, with the local images (`make images LOCAL=1`). Orders are CDNOW's, all of them; the traffic of the
canary is simulated. One stack runs undisturbed. In another one, from nothing, each container dies by SIGKILL while the
same day and training run. Both must hold the same.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from plumbline import files
from plumbline.settings import ROOT
from products.churn import CHURN
from tests.compose.stack import Asking, Stack
from toolchain import backup, compose, rotation

pytestmark = [pytest.mark.compose, pytest.mark.timeout(7200)]

DAY, NOW, CUSTOMERS = "1998-06-30", "1998-07-01T00:00:00Z", range(1, 31)
DAILY, TRAINING = "retail_features", "ml_training_pipeline"
DIGESTS = (Path(__file__).parent / "digests.py").read_text()
REPORT = ROOT / ".plumbline" / "report" / "compose.md"
ROWS = REPORT.with_suffix(".json")
"""What each test last said: a run of some of them leaves the others' rows as they were."""

KILLS = {
    "ingest": ("s3", "airflow-dag-processor"),
    "dbt_run": ("spark",),
    "ge_check": ("airflow-scheduler",),
    "features": ("postgres", "prometheus"),
    "release": ("airflow-api", "exporter"),
    "materialize": ("redis",),
    "parity_check": ("airflow-triggerer",),
    "train": ("mlflow",),
    "register": ("churn-judge", "envoy"),
    "deploy": ("rollout", "churn-canary", "churn-stable"),
}
"""Who dies while which task is at work, once each."""

WORKER_PYTHON = "/opt/venvs/pipeline/bin/python"
SIGNERS = """
import json
from plumbline.registry import registered_models
from products.churn import CHURN
print(json.dumps([found.tags["signature"] for found in registered_models.versions(CHURN.model)]))
"""
REFUSED = re.compile("denied|403|NOPERM|no permissions|name resolution|not known|No address", re.IGNORECASE)
"""What a server says that refuses, or the resolver of a container that is not on its network."""

OLD_KEYS = """
import boto3, os, redis
tries = [
    lambda: boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"], aws_access_key_id="{key}",
                         aws_secret_access_key="{s3}").list_objects_v2(Bucket="models"),
    lambda: redis.Redis("redis", username="{key}", password="{redis}").ping(),
]
for attempt in tries:
    try:
        attempt()
        print("in")
    except Exception as error:
        print("refused")
"""
LANDED = """
from plumbline.lake import tables as lake
table = lake.found("raw.order_events")
events = table.to_pyarrow_table(columns=["event_id"])["event_id"].to_pylist() if table else []
print(len(events) if len(set(events)) == len(events) else -1)
"""

CUT_OFF = ("features", "spark", "lake", 15.0)
"""The task while which a service loses a network, and for how many seconds: Spark, whose store is there."""


@dataclass
class Seen:
    """What the report is made of."""

    undisturbed: dict[str, Any] = field(default_factory=dict)
    rows: dict[str, tuple[int, str]] = field(default_factory=dict)
    memory: dict[str, int] = field(default_factory=dict)

    def tell(self, what: str, seconds: float, ended: str) -> None:
        self.rows[what] = round(seconds), ended
        print(f"  · {what}: {ended} ({seconds:.0f} s)", flush=True)


@pytest.fixture(scope="module")
def seen() -> Iterator[Seen]:
    found = Seen()
    yield found
    before = {"rows": [], "memory": {}} | (files.read_json(ROWS) or {})
    rows = {**{what: (seconds, ended) for what, seconds, ended in before["rows"]}, **found.rows}
    memory = found.memory or before["memory"]
    files.write_whole(ROWS, files.dumps({"rows": [[what, *told] for what, told in rows.items()], "memory": memory}))
    files.write_whole(REPORT, _report(rows, memory))


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    made = Stack(tmp_path_factory.mktemp("stack"), NOW)
    made.down(volumes=True)
    try:
        yield made
    finally:
        made.down(volumes=True)


def test_a_day_of_orders_ends_in_a_live_answer(stack: Stack, seen: Seen) -> None:
    seen.tell("the stack from nothing", stack.up(), f"{len(stack.running())} containers healthy")
    assert stack.ask(1)[0] == 503, "there is no model yet"
    begun = time.monotonic()
    for _ in stack.ended(DAILY, stack.trigger(DAILY, DAY)):
        pass
    seen.tell("all orders to online features, by Airflow's scheduler", time.monotonic() - begun, "every gate passed")
    begun = time.monotonic()
    for _ in stack.ended(TRAINING, stack.newest(TRAINING)):
        pass
    known = _answered(stack)
    seen.tell("the training that it started, and its model served", time.monotonic() - begun, _told(known))
    seen.memory = stack.memory()
    seen.undisturbed = _digests(stack)
    assert seen.undisturbed["release"] == 1


def test_a_predictor_may_read_models_and_append_to_its_log_and_nothing_else(stack: Stack, seen: Seen) -> None:
    begun = time.monotonic()
    refused = [
        ("churn-stable", "from plumbline.state import objects as o; o.store_at('s3://state').keys('releases', None)"),
        ("churn-stable", "from plumbline.state import objects as o; o.store_at('s3://lake/raw').keys('orders', None)"),
        ("churn-stable", "from plumbline.state import objects as o; o.store_at('s3://models').create('churn/x', b'')"),
        ("churn-stable", "import socket; socket.create_connection(('postgres', 5432), 2)"),
        ("churn-stable", "from plumbline.servers import online_store as r; r.client().set('x', '1')"),
        ("churn-stable", "from plumbline.servers import online_store as r; r.client().client_pause(1)"),
        ("exporter", "import socket; socket.create_connection(('spark', 15002), 2)"),
        ("mlflow", "import socket; socket.create_connection(('spark', 15002), 2)"),
        ("churn-judge", "from plumbline.state import objects as o; o.store_at('s3://lake/serving').create('x', b'')"),
        ("exporter", "from plumbline.state import objects as o; o.store_at('s3://state').create('x', b'')"),
        (
            "airflow-triggerer",
            "import sqlalchemy as s; from plumbline.settings import settings\n"
            "with s.create_engine(settings().shop).begin() as c: c.execute(s.text('DELETE FROM orders'))",
        ),
    ]
    may = "from plumbline.state import objects as o; o.store_at('s3://models').keys('churn', None)"
    for service, code in [("churn-stable", may), *refused]:
        program = "/opt/venvs/pipeline/bin/python" if service.startswith("airflow") else "python"
        tried = f"try:\n    exec({code!r})\n    print('done')\nexcept Exception as error:\n    print(repr(error))\n"
        told = stack.python(tried, service, program)
        assert (told.strip() == "done") == (code == may), f"{service}: {code}: {told}"
        assert code == may or REFUSED.search(told), f"{service}: {code}: {told}"
    seen.tell(f"{len(refused)} things that a service must not do", time.monotonic() - begun, "each refused")


def test_a_good_canary_is_promoted_and_a_bad_one_aborted_in_containers(stack: Stack, seen: Seen) -> None:
    begun = time.monotonic()
    told = json.loads(stack.plumb("demo-canary", "--per-second", "60", "--json"))
    assert [item["phase"] for item in told] == ["Healthy", "Aborted"], told
    status, answer = stack.ask(_answered(stack)[0])
    assert status == 200 and answer["model_version"] == told[0]["version"]
    for item in told:
        seen.tell(f"canary, {item['variant']}", item["seconds"], f"{item['phase']}: {item['verdict']}")
    assert time.monotonic() - begun < 900


def test_a_predictor_cut_off_from_redis_says_so_and_comes_back(stack: Stack, seen: Seen) -> None:
    customer, begun = _answered(stack)[0], time.monotonic()
    with stack.cut_off("redis", "serving"):
        # The first may hang on a connection until Envoy's three seconds are over: 504.
        status, answer = _until(lambda: stack.ask(customer), lambda told: told[0] == 503, 30)
        assert status == 503, answer
    status, answer = _until(lambda: stack.ask(customer), lambda told: told[0] == 200, 60)
    assert status == 200
    seen.tell("Redis cut off from the predictors", time.monotonic() - begun, "503 meanwhile, then answers again")


def test_thrown_away_but_what_postgres_and_s3_keep_it_goes_on(stack: Stack, seen: Seen) -> None:
    customer = _answered(stack)[0]
    before = stack.ask(customer)[1]
    stack.down()
    seconds = stack.up()
    status, answer = _until(lambda: stack.ask(customer), lambda told: told[0] == 200, 60)
    assert status == 200 and answer["predictions"] == before["predictions"]
    assert answer["model_version"] == before["model_version"]
    for _ in stack.ended(DAILY, stack.trigger(DAILY, DAY)):
        pass
    seen.tell("down and up, two volumes kept", seconds, "the same answer; the day again changes nothing")


def test_passwords_and_signing_key_change_without_a_failed_request(stack: Stack, seen: Seen) -> None:
    customer, begun, before = _answered(stack)[0], time.monotonic(), stack.secrets
    signed = json.loads(stack.python(SIGNERS))
    old = {
        "key": f"predictor-{before['GENERATION']}",
        "s3": before["S3_PREDICTOR_SECRET"],
        "redis": before["REDIS_PREDICTOR_PASSWORD"],
    }
    assert stack.python(OLD_KEYS.format(**old)).split() == ["in", "in"]
    with Asking(stack, customer) as asking:
        rotation.rotate(stack.compose, stack.env)
    assert set(asking.statuses) == {200}, asking.statuses
    after = stack.secrets
    assert {name for name in before if before[name] == after[name]} == set(compose.STAYING)
    assert not set(signed) & set(json.loads(stack.python(SIGNERS))), "every version is signed anew"
    found = stack.python(OLD_KEYS.format(**old))
    assert found.split() == ["refused", "refused"], found
    for _ in stack.ended(DAILY, stack.trigger(DAILY, DAY)):
        pass
    asked = sum(asking.statuses.values())
    seen.tell(
        "new passwords and a new signing key", time.monotonic() - begun, f"{asked:,} requests meanwhile, none failed"
    )


def test_a_backup_comes_back_in_an_empty_stack(stack: Stack, seen: Seen, tmp_path: Path) -> None:
    customer = _answered(stack)[0]
    before, digests = stack.ask(customer)[1], _digests(stack)
    begun = time.monotonic()
    with stack.environment():
        backup.backup(stack.command, tmp_path / "saved", stack.env)
        saved = time.monotonic() - begun
        stack.down(volumes=True)
        begun = time.monotonic()
        stack.env.unlink()  # another machine: with passwords and a signing key of its own
        compose.write_secrets(stack.env)
        backup.restore(stack.command, tmp_path / "saved", stack.env)
        restored = time.monotonic() - begun
    status, answer = _until(lambda: stack.ask(customer), lambda told: told[0] == 200, 120)
    assert status == 200 and answer["predictions"] == before["predictions"]
    assert answer["model_version"] == before["model_version"]
    assert _digests(stack) == digests
    for _ in stack.ended(DAILY, stack.trigger(DAILY, DAY)):
        pass
    size = sum(path.stat().st_size for path in (tmp_path / "saved").iterdir()) / 1e6
    seen.tell("a backup of everything", saved, f"{size:.0f} MB")
    seen.tell("brought back into an empty stack", restored, "the same answer; tables, Redis and registry equal")


def test_the_order_stream_and_what_watches_it_run_in_the_stack(stack: Stack, seen: Seen) -> None:
    begun = time.monotonic()
    stack.profiles = ["watch", "events"]
    try:
        landed = _streamed(stack)
    finally:
        stack.compose("rm", "--stop", "--force", "stream", "kafka", "alertmanager")
        stack.profiles = []
    told = f"{landed:,} events sent, each landed once"
    seen.tell("the order stream, its job and its broker killed", time.monotonic() - begun, told)


def _streamed(stack: Stack) -> int:
    """Two weeks of orders sent as events while job and broker are killed; how many landed."""
    stack.up()
    command = ["run", "--rm", "-T", "--no-deps", "stream", "events", "produce", "--from", "1998-06-16", "--rate", "40"]
    with ThreadPoolExecutor(1) as pool:
        producing = pool.submit(stack.compose, *command, "--json")
        time.sleep(15)
        stack.kill("stream")
        sent = json.loads(producing.result())
    stack.kill("kafka")
    landed: int = _until(lambda: int(stack.python(LANDED)), lambda found: found >= sent["events"], 240)
    assert landed == sent["events"] > 500
    up = _until(lambda: stack.prometheus("up{job=~'order-stream|exporter|envoy'}"), lambda found: len(found) == 3, 60)
    assert set(up.values()) == {"1"}, up
    alerts = _until(lambda: stack.alerts(), lambda found: "Watchdog" in found, 90)
    assert "Watchdog" in alerts
    return landed


def test_every_container_killed_the_days_end_the_same(stack: Stack, seen: Seen) -> None:
    assert seen.undisturbed, "the undisturbed run did not end"
    stack.down(volumes=True)
    stack.up()
    begun, dead, cut = time.monotonic(), set[str](), False
    for dag in (DAILY, TRAINING):
        run = stack.trigger(DAILY, DAY) if dag == DAILY else stack.newest(TRAINING)
        for tasks in stack.ended(dag, run, within=2400):
            running = {name for name, told in tasks.items() if told["state"] == "running"}
            for task in running & set(KILLS):
                if task == CUT_OFF[0] and not cut:
                    cut = True
                    with stack.cut_off(CUT_OFF[1], CUT_OFF[2]):
                        time.sleep(CUT_OFF[3])
                    print(f"  · {CUT_OFF[1]} was cut off from {CUT_OFF[2]} while {task} was at work", flush=True)
                for victim in [name for name in KILLS[task] if name not in dead]:
                    stack.kill(victim)
                    dead.add(victim)
                    print(f"  · {victim} killed while {task} was at work", flush=True)
    assert cut and dead == {victim for victims in KILLS.values() for victim in victims}, "each dies once"
    _until(lambda: stack.ask(_answered(stack)[0]), lambda told: told[0] == 200, 120)
    assert _digests(stack) == seen.undisturbed
    what = f"{len(dead)} containers killed, once each, and Spark cut off from its store"
    seen.tell(what, time.monotonic() - begun, "tables, Redis and registry equal")


def test_on_two_workers_two_schedulers_and_two_predictors_the_day_is_the_laptops(
    stack: Stack, seen: Seen, tmp_path: Path
) -> None:
    assert seen.undisturbed, "the undisturbed run did not end"
    stack.down(volumes=True)
    stack.profiles = ["workers"]
    stack.given = {"SPARK_MASTER": "spark://spark-master:7077", "PREDICTORS": "2", "SCHEDULERS": "2"}
    begun = time.monotonic()
    try:
        stack.up()
        for name in ("spark-worker", "airflow-scheduler", "churn-stable"):
            assert len(stack.containers(name)) == 2, name
        for dag in (DAILY, TRAINING):
            for _ in stack.ended(dag, stack.trigger(DAILY, DAY) if dag == DAILY else stack.newest(TRAINING)):
                pass
        customer = _answered(stack)[0]
        assert _digests(stack) == seen.undisturbed
        with Asking(stack, customer) as asking:
            time.sleep(3)
            stack.kill("churn-stable")
            time.sleep(12)
        failed = {status: count for status, count in asking.statuses.items() if status != 200}
        assert sum(failed.values()) <= 3, "those under way when it died, one a caller"
        asked = (
            f"{sum(asking.statuses.values()):,} requests around the kill of a predictor, {sum(failed.values())} failed"
        )
        seen.tell(
            "two Spark workers, schedulers and predictors", time.monotonic() - begun, f"everything equal; {asked}"
        )
    finally:
        stack.down(volumes=True)
        stack.profiles, stack.given = [], {}
    begun = time.monotonic()
    laptop = _on_a_laptop(tmp_path / "home")
    assert {name: laptop[name] for name in ("tables", "online")} == {
        name: seen.undisturbed[name] for name in ("tables", "online")
    }
    seen.tell(
        "the same day on a laptop's embedded servers", time.monotonic() - begun, "tables and Redis equal the stack's"
    )


def _digests(stack: Stack) -> dict[str, Any]:
    """What lake, Redis and registry hold. By the scheduler's container, which has the memory for it."""
    found: dict[str, Any] = json.loads(stack.python(DIGESTS, "airflow-scheduler", WORKER_PYTHON))
    return found


def _on_a_laptop(home: Path) -> dict[str, Any]:
    """The same of a home of this machine, after the same day."""
    environment = {**os.environ, "PLUMBLINE_HOME": str(home), "PLUMBLINE_NOW": NOW}
    environment["PLUMBLINE_CACHE"] = str(ROOT / ".plumbline" / "cache")
    plumb = [sys.executable, "-m", "plumb"]
    try:
        subprocess.run([*plumb, "shop", "load"], env=environment, check=True, capture_output=True, cwd=ROOT)
        for stage in CHURN.daily_stages:
            of_day = () if stage in ("materialize", "parity_check") else ("--as-of", DAY)
            subprocess.run([*plumb, stage, *of_day], env=environment, check=True, capture_output=True, cwd=ROOT)
        told = subprocess.run(
            [sys.executable, "-"], input=DIGESTS, env=environment, check=True, capture_output=True, text=True, cwd=ROOT
        )
        found: dict[str, Any] = json.loads(told.stdout)
        return found
    finally:
        subprocess.run([*plumb, "down"], env=environment, check=False, capture_output=True)


def _answered(stack: Stack) -> list[int]:
    """The customers of CUSTOMERS whom the shop's slice has: the others are unknown."""

    def known() -> list[int]:
        return [customer for customer in CUSTOMERS if stack.ask(customer)[0] == 200]

    assert _until(known, bool, 120), stack.ask(CUSTOMERS[0])
    return known()  # the first time it may have come up between two of them


def _told(known: list[int]) -> str:
    return f"{len(known)} of {len(CUSTOMERS)} customers asked for are answered through Envoy"


def _until(ask: Any, wanted: Any, within: float) -> Any:
    deadline = time.monotonic() + within
    while not wanted(found := ask()) and time.monotonic() < deadline:
        time.sleep(0.5)
    return found


def _report(rows: dict[str, tuple[int, str]], memory: dict[str, int]) -> str:
    told = "\n".join(f"| {what} | {seconds:,} | {ended} |" for what, (seconds, ended) in rows.items())
    held = "\n".join(f"| {name} | {size:,} |" for name, size in sorted(memory.items(), key=lambda item: -item[1]))
    return (
        "<!-- Made by `make test-compose`: do not edit. -->\n# The compose stack, tried\n\n"
        "By `make test-compose` on the local images, two shared cores: all of CDNOW's orders; the canaries' traffic is "
        "simulated. Each row is of the last run of its test.\n\n| what | seconds | how it ended |\n|---|---:|---|\n"
        f"{told}\n\n| service | MiB after the day |\n|---|---:|\n{held}\n"
    )
