"""A rollout driven on one machine: real Envoy, real Prometheus, the cluster's Rollout file; small upstreams."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from plumbline.errors import Conflict, ServiceUnavailable
from plumbline.product import Product
from plumbline.servers import services
from plumbline.settings import ROOT, settings
from products.churn import CHURN
from serving import deploy, launch
from serving.rollout import driver, envoy, manifests, prometheus, state
from serving.rollout.driver import Aborted, Driver
from serving.rollout.errors import RolloutError
from tests.conftest import use_home
from tests.serving.made_up_customers import eventually
from tests.serving.rollout.rollout_world import ROLLOUT, TEMPLATES, Registry, SmallLaptop, callers, predictor, written

KINDS = {"1": "good", "2": "good", "3": "failing"}


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The home of all these tests: Envoy and Prometheus stay up from one to the next."""
    home = tmp_path_factory.mktemp("rollouts") / "home"
    with pytest.MonkeyPatch.context() as patch:
        use_home(home, patch)
        yield home
        use_home(home, patch)
        services.stop_all()
    settings.cache_clear()


@pytest.fixture
def registry(standing: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """A registry whose champion is version 1; versions 1 and 2 answer well, 3 fails. Nothing was rolled out yet."""
    use_home(standing, monkeypatch)
    shutil.rmtree(standing / "rollouts", ignore_errors=True)
    for name in (CHURN.server, launch.canary_name(CHURN)):
        services.stop(name)
    made = Registry()
    monkeypatch.setattr(driver.registry, "find", made.find)
    monkeypatch.setattr(deploy, "settle", made.settle)
    monkeypatch.setattr(
        launch, "ensure", lambda product: predictor(product.server, made.champion, KINDS[made.champion])
    )
    monkeypatch.setattr(
        launch, "canary", lambda product, version: predictor(launch.canary_name(product), version, KINDS[version])
    )
    return made


@pytest.fixture
def laptop(registry: Registry, tmp_path: Path) -> SmallLaptop:
    """All of it up, all traffic to version 1."""
    made = SmallLaptop(CHURN, ROLLOUT, written(tmp_path))
    made.up()
    return made


@pytest.fixture
def asked(laptop: SmallLaptop) -> Iterator[Any]:
    """Steady callers of the proxy."""
    with callers(laptop.addresses()["churn-model"]) as found:
        yield found


@pytest.fixture
def first_step(laptop: SmallLaptop) -> SmallLaptop:
    """The same, of the Rollout's steps only the first weight and its analysis: what comes after is the same again."""
    laptop.rollout = replace(laptop.rollout, steps=laptop.rollout.steps[:2])
    return laptop


def weights(status: state.Status) -> list[int]:
    return [item["canary"] for item in status.weights]


def in_file(laptop: SmallLaptop) -> dict[str, int]:
    return envoy.weights(manifests.read(laptop.virtual_service, "VirtualService"))


def test_a_good_version_is_promoted_step_by_step_and_no_request_fails(
    laptop: SmallLaptop, registry: Registry, asked: Any
) -> None:
    seen: set[int] = set()
    status = Driver(laptop, {}, lambda now, _: seen.add(in_file(laptop)["churn-canary"])).run("2")
    assert (status.phase, weights(status)) == ("Healthy", [10, 25, 50, 100])
    assert {10, 25, 50} <= seen
    assert registry.settled == ["2"]
    assert in_file(laptop) == {"churn-stable": 100, "churn-canary": 0}
    stable = services.find(CHURN.server)
    assert stable and stable.more["model"] == "2" and services.find(launch.canary_name(CHURN)) is None
    assert (launch.track_file(stable.more["revision"])).read_text() == "stable\n"
    before = asked[200]
    eventually(lambda: asked[200] > before + 5)
    assert set(asked) == {200}
    assert status.exposed > 5
    assert state.newest(CHURN) == status


def test_a_bad_version_is_aborted_at_the_first_step_and_the_champion_stays(
    laptop: SmallLaptop, registry: Registry, asked: Any
) -> None:
    with pytest.raises(Aborted, match=r"error-rate: 0\.\d+, expected .* \(2 bad, 1 allowed\)"):
        Driver(laptop, {}).run("3")
    status = state.newest(CHURN)
    assert status and (status.phase, weights(status)) == ("Aborted", [10, 0])
    assert registry.champion == "1" and not registry.settled
    assert services.find(launch.canary_name(CHURN)) is None
    assert in_file(laptop)["churn-canary"] == 0
    failed, good = asked[500], asked[200]
    eventually(lambda: asked[200] > good + 10)
    assert asked[500] == failed
    assert 0 < status.exposed < good


def test_a_canary_that_nobody_asks_is_not_promoted(laptop: SmallLaptop) -> None:
    with pytest.raises(Aborted, match=r"canary-traffic: (no data|0), expected|error-rate: (no data|NaN)"):
        Driver(laptop, {}).run("2")
    assert state.newest(CHURN).phase == "Aborted"  # type: ignore[union-attr]


def test_without_prometheus_the_weights_go_back(laptop: SmallLaptop, asked: Any) -> None:
    def gone(status: state.Status, _: Any) -> None:
        if status.weight == 10:
            services.stop(prometheus.NAME)

    with pytest.raises(
        Aborted, match=r"rollout-prometheus does not run|no answer from Prometheus .* \(2 failed in a row, 1 allowed\)"
    ):
        Driver(laptop, {}, gone).run("2")
    assert in_file(laptop)["churn-canary"] == 0


def test_a_canary_that_dies_is_aborted(laptop: SmallLaptop, asked: Any) -> None:
    def killed(status: state.Status, _: Any) -> None:
        canary = services.find(launch.canary_name(CHURN))
        if status.weight == 10 and canary:
            os.kill(canary.pid, signal.SIGKILL)

    with pytest.raises(Aborted, match="the canary's process ended"):
        Driver(laptop, {}, killed).run("2")
    assert in_file(laptop)["churn-canary"] == 0


def test_a_driver_that_is_interrupted_sends_the_traffic_back(laptop: SmallLaptop, registry: Registry) -> None:
    def interrupt(status: state.Status, _: Any) -> None:
        if status.weight == 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Driver(laptop, {}, interrupt).run("2")
    status = state.newest(CHURN)
    assert status and (status.phase, status.message) == ("Aborted", "its driver was interrupted")
    assert in_file(laptop)["churn-canary"] == 0 and registry.champion == "1"


def test_promoted_in_mid_analysis_it_goes_to_the_next_step_and_no_further(laptop: SmallLaptop, asked: Any) -> None:
    told: list[int] = []

    def answer(status: state.Status, _: Any) -> None:
        if status.message.startswith("analysis") and not told:
            told.append(status.weight)
            state.ask(CHURN, state.PROMOTE)

    status = Driver(laptop, {}, answer).run("2")
    assert (told, weights(status)) == ([10], [10, 25, 50, 100])


def test_an_abort_goes_through_when_the_registry_cannot_be_asked(
    laptop: SmallLaptop, asked: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any) -> None:
        raise ServiceUnavailable("the registry is away")

    def settle(product: Product, version: str) -> None:
        monkeypatch.setattr(driver.registry, "find", away)
        away()

    monkeypatch.setattr(deploy, "settle", settle)
    laptop.rollout = replace(laptop.rollout, steps=laptop.rollout.steps[:1])
    with pytest.raises(ServiceUnavailable):
        Driver(laptop, {}).run("2")
    status = state.newest(CHURN)
    assert status and (status.phase, weights(status)) == ("Aborted", [10, 100, 0])
    assert services.find(launch.canary_name(CHURN)) is None


def test_an_inconclusive_analysis_pauses_until_somebody_promotes(
    first_step: SmallLaptop, registry: Registry, asked: Any, tmp_path: Path
) -> None:
    unsure = "successCondition: len(result) > 0 && result[0] > 1e9\n      failureCondition: len(result) == 0"
    first_step.templates = written(
        tmp_path, TEMPLATES.replace("successCondition: len(result) > 0 && result[0] >= 1", unsure)
    )
    paused: list[int] = []

    def answer(status: state.Status, _: Any) -> None:
        if status.phase == "Paused" and status.weight not in paused:
            paused.append(status.weight)
            state.ask(CHURN, state.PROMOTE)

    assert Driver(first_step, {}, answer).run("2").phase == "Healthy"
    assert paused == [10]


def test_another_version_takes_the_canarys_place(first_step: SmallLaptop, registry: Registry, asked: Any) -> None:
    once: list[int] = []

    def another(status: state.Status, _: Any) -> None:
        if status.weight == 10 and not once:
            once.append(10)
            state.ask(CHURN, state.REPLACE, version="2")

    status = Driver(first_step, {}, another).run("3")
    first, second = state.everyone(CHURN)
    assert (first.phase, first.message, weights(first)) == ("Aborted", "version 2 was asked for instead", [10, 0])
    assert (second.phase, weights(second)) == ("Healthy", [10, 100]) and status == second
    assert registry.champion == "2"


def test_asked_to_abort_it_aborts_and_another_deployment_is_refused(laptop: SmallLaptop, asked: Any) -> None:
    refused: list[str] = []

    def other(status: state.Status, _: Any) -> None:
        if status.weight == 10:
            with pytest.raises(Conflict, match="a rollout is under way"):
                Driver(laptop, {}).run("3")
            with pytest.raises(Conflict, match="`plumb rollout abort` ends it"):
                deploy.deploy(CHURN, "3")
            refused.append(status.phase)
            state.ask(CHURN, state.ABORT, by="the test")

    with pytest.raises(Aborted, match="the test asked for it"):
        Driver(laptop, {}, other).run("2")
    assert refused


def test_the_next_command_ends_what_a_killed_driver_left(laptop: SmallLaptop, tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from tests.serving.rollout import rollout_world as world\n"
        "from pathlib import Path\n"
        "from serving import launch\n"
        "from products.churn import CHURN\n"
        "from serving.rollout import driver\n"
        "made = world.Registry(); driver.registry.find = made.find\n"
        "launch.ensure = lambda product: world.predictor(product.server, '1', 'good')\n"
        "launch.canary = lambda product, version: world.predictor(launch.canary_name(product), version, 'good')\n"
        "driver.Driver(world.SmallLaptop(CHURN, world.ROLLOUT, world.written(Path(sys.argv[1]))), {}).run('2')\n"
    )
    running = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT)
    eventually(lambda: (found := state.newest(CHURN)) and found.weight == 10, 20)
    running.kill()
    running.wait()
    assert in_file(laptop)["churn-canary"] == 10
    found = driver.recover(CHURN)
    assert found and found.phase == "Aborted" and "its driver was killed" in found.message
    assert in_file(laptop)["churn-canary"] == 0
    assert services.find(launch.canary_name(CHURN)) is None
    assert driver.recover(CHURN) == found


@pytest.mark.parametrize(
    ("was", "now", "message"),
    [
        ("result[0] >= 1", "result[0] matches 'x'", "cannot be read"),
        ("result[0] >= 1", "max(result) >= 1", r"'max\(result\)' is not evaluated on a laptop"),
        ("{{args.count}}", "{{args.size}}", "uses the arg 'size' and does not declare it"),
        ("- {name: canary-hash}\n", "- {name: canary-hash}\n    - {name: more}\n", "the args more have no value"),
    ],
)
def test_a_template_that_cannot_be_followed_is_refused_before_anything_starts(
    registry: Registry, tmp_path: Path, was: str, now: str, message: str
) -> None:
    made = SmallLaptop(CHURN, ROLLOUT, written(tmp_path, TEMPLATES.replace(was, now)))
    with pytest.raises(RolloutError, match=message):
        Driver(made, {}).run("2")
    assert CHURN.server not in services.running() and state.newest(CHURN) is None


@pytest.mark.parametrize(("model", "message"), [("9", "no '9' to roll out"), ("1", "version 1 is champion already")])
def test_what_cannot_be_rolled_out_is_refused(registry: Registry, tmp_path: Path, model: str, message: str) -> None:
    with pytest.raises(RolloutError, match=message):
        Driver(SmallLaptop(CHURN, ROLLOUT, written(tmp_path)), {}).run(model)
