"""The compose stack on a real engine: a day of orders to a live answer, a canary, every container killed, parts cut off
from each other, everything thrown away but what Postgres and the S3 server keep.

`make test-compose`, with the local images (`make images LOCAL=1`). Orders are CDNOW's, all of them; the traffic of the
canary is simulated. One stack runs undisturbed. In another one, from nothing, each container dies by SIGKILL while the
same day and training run. Both must hold the same.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from plumbline.settings import ROOT
from tests.compose.stack import Stack

pytestmark = [pytest.mark.compose, pytest.mark.timeout(7200)]

DAY, NOW, CUSTOMERS = "1998-06-30", "1998-07-01T00:00:00Z", range(1, 31)
DAILY, TRAINING = "retail_features", "ml_training_pipeline"
DIGESTS = (Path(__file__).parent / "digests.py").read_text()
REPORT = ROOT / ".plumbline" / "report" / "compose.md"

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


@dataclass
class Seen:
    """What the report is made of."""

    undisturbed: dict[str, Any] = field(default_factory=dict)
    rows: list[tuple[str, str, str]] = field(default_factory=list)
    memory: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def tell(self, what: str, seconds: float, ended: str) -> None:
        self.rows.append((what, f"{seconds:.0f}", ended))
        print(f"  · {what}: {ended} ({seconds:.0f} s)", flush=True)


@pytest.fixture(scope="module")
def seen() -> Iterator[Seen]:
    found = Seen()
    yield found
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.write_text(_report(found))


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
    seen.undisturbed = json.loads(stack.python(DIGESTS))
    assert seen.undisturbed["release"] == 1


def test_a_predictor_may_read_models_and_append_to_its_log_and_nothing_else(stack: Stack, seen: Seen) -> None:
    begun = time.monotonic()
    refused = [
        ("churn-stable", "from plumbline.state import objects as o; o.store_at('s3://state').keys('releases', None)"),
        ("churn-stable", "from plumbline.state import objects as o; o.store_at('s3://lake/raw').keys('orders', None)"),
        ("churn-stable", "from plumbline.state import objects as o; o.store_at('s3://models').create('churn/x', b'')"),
        ("churn-stable", "import socket; socket.create_connection(('postgres', 5432), 2)"),
        ("churn-stable", "from plumbline.servers import online_store as r; r.client().set('x', '1')"),
        ("churn-judge", "from plumbline.state import objects as o; o.store_at('s3://lake/serving').create('x', b'')"),
        ("exporter", "from plumbline.state import objects as o; o.store_at('s3://state').create('x', b'')"),
        (
            "airflow-triggerer",
            "import sqlalchemy as s; from plumbline.settings import settings\n"
            "with s.create_engine(settings().shop).begin() as c: c.execute(s.text('DELETE FROM orders'))",
        ),
    ]
    for service, code in refused:
        program = "/opt/venvs/pipeline/bin/python" if service.startswith("airflow") else "python"
        told = stack.python(
            f"try:\n    exec({code!r})\nexcept Exception as error:\n    print('refused', type(error).__name__)\n",
            service,
            program,
        )
        assert told.startswith("refused"), f"{service} may {code}"
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
        status, answer = _until(lambda: stack.ask(customer), lambda told: told[0] != 200, 30)
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


def test_every_container_killed_the_days_end_the_same(stack: Stack, seen: Seen) -> None:
    assert seen.undisturbed, "the undisturbed run did not end"
    stack.down(volumes=True)
    stack.up()
    begun, dead = time.monotonic(), set[str]()
    for dag in (DAILY, TRAINING):
        run = stack.trigger(DAILY, DAY) if dag == DAILY else stack.newest(TRAINING)
        for tasks in stack.ended(dag, run, within=2400):
            running = {name for name, told in tasks.items() if told["state"] == "running"}
            for task in running & set(KILLS):
                for victim in [name for name in KILLS[task] if name not in dead]:
                    stack.kill(victim)
                    dead.add(victim)
                    print(f"  · {victim} killed while {task} was at work", flush=True)
    assert dead == {victim for victims in KILLS.values() for victim in victims}, "each dies once"
    _until(lambda: stack.ask(_answered(stack)[0]), lambda told: told[0] == 200, 120)
    found = json.loads(stack.python(DIGESTS))
    assert found == seen.undisturbed
    seen.tell(f"{len(dead)} containers killed, once each", time.monotonic() - begun, "tables, Redis and registry equal")


def _answered(stack: Stack) -> list[int]:
    """The customers of CUSTOMERS whom the shop's slice has: the others are unknown."""

    def known() -> list[int]:
        return [customer for customer in CUSTOMERS if stack.ask(customer)[0] == 200]

    found: list[int] = _until(known, bool, 120)
    assert found, stack.ask(CUSTOMERS[0])
    return found


def _told(known: list[int]) -> str:
    return f"{len(known)} of {len(CUSTOMERS)} customers asked for are answered through Envoy"


def _until(ask: Any, wanted: Any, within: float) -> Any:
    deadline = time.monotonic() + within
    while not wanted(found := ask()) and time.monotonic() < deadline:
        time.sleep(0.5)
    return found


def _report(seen: Seen) -> str:
    rows = "\n".join(f"| {what} | {seconds} | {ended} |" for what, seconds, ended in seen.rows)
    memory = "\n".join(
        f"| {name} | {size:,} |" for name, size in sorted(seen.memory.items(), key=lambda item: -item[1])
    )
    return (
        "<!-- Made by `make test-compose`: do not edit. -->\n# The compose stack, tried\n\n"
        f"By `make test-compose` on the local images, two cores: all of CDNOW's orders; the canaries' traffic is "
        f"simulated.\n\n| what | seconds | how it ended |\n|---|---:|---|\n{rows}\n\n"
        f"| service | MiB after the day |\n|---|---:|\n{memory}\n"
    )
