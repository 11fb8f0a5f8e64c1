"""Canaries by the real controllers under real traffic: promoted, aborted, disturbed. The page is docs/cluster.md."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import argo_cd
import pytest
import stories
import world
from conftest import Cluster
from control_plane import eventually
from stories import Story, ship, split_is_right
from world import Model

from plumbline import files
from plumbline.registry import registered_models
from plumbline.servers import services
from plumbline.settings import ROOT
from products.churn import CHURN
from serving import loaded_model as registry
from serving.rollout import prometheus
from toolchain import cluster_binaries

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

REPORT = ROOT / ".plumbline" / "report" / "cluster.md"
WHOLE = 7
"""Stories of a whole run; a part of it writes no page."""


@pytest.fixture(scope="module")
def told(cluster: Cluster) -> Iterator[list[Story]]:
    """The stories so far; the page is written when all are told."""
    begun, found = time.monotonic(), list[Story]()
    yield found
    for story in found:
        print(stories._row(story))
    if len(found) == WHOLE:
        files.write_whole(REPORT, stories.page(found, [*cluster_binaries.costs(), _cost(time.monotonic() - begun)]))


def test_a_good_version_is_promoted_step_by_step(cluster: Cluster, told: list[Story]) -> None:
    model = world.WAITING["good"].pop(0)
    story = _ship(cluster, told, "a good model", model)
    assert story.phase == "Healthy", story.verdicts
    assert story.canary_weights == [10, 25, 50, 100, 0]
    assert story.failed == 0
    split_is_right(story)
    assert {one.version for one in story.after if one.at > story.ended + stories.SETTLED} == {model.version}
    assert cluster.deployed.settle(model) == "Succeeded"
    assert _champion() == model.version


@pytest.mark.parametrize(
    ("kind", "guardrails"),
    [
        ("worse", {"score-shift", "conversion-rate", "call-center-load"}),
        ("slow", {"latency-p99"}),
        ("loses features", {"missing-features"}),
    ],
)
def test_a_bad_version_is_stopped_at_ten_percent(
    cluster: Cluster, told: list[Story], kind: str, guardrails: set[str]
) -> None:
    good, champion = _serving(cluster), _champion()
    story = _ship(
        cluster, told, f"a model that {kind}" if " " in kind else f"a {kind} model", world.WAITING[kind].pop(0)
    )
    assert story.phase == "Degraded"
    assert story.canary_weights == [10, 0]
    assert guardrails & {verdict.split()[0] for verdict in story.verdicts}, story.verdicts
    assert story.failed == 0
    split_is_right(story)
    assert story.exposed > 0
    assert {one.version for one in story.after if one.at > story.ended + stories.SETTLED} == {good}
    assert _champion() == champion
    _revert(cluster, good)


def test_without_prometheus_nothing_is_promoted(cluster: Cluster, told: list[Story]) -> None:
    good = _serving(cluster)

    def kill(begun: float) -> list[str]:
        _at(cluster, 10, begun)
        found = services.find(prometheus.NAME)
        assert found is not None
        os.killpg(found.pid, signal.SIGKILL)
        return ["Prometheus was killed at weight 10"]

    story = _ship(cluster, told, "a good model, Prometheus killed", world.WAITING["good"].pop(0), kill)
    cluster.mesh.start_prometheus()
    assert story.phase == "Degraded"
    assert story.canary_weights == [10, 0]
    assert story.failed == 0
    assert any(verdict.endswith("error (connection refused)") for verdict in story.verdicts), story.verdicts
    _revert(cluster, good)


def test_a_predictor_that_dies_is_not_promoted(cluster: Cluster, told: list[Story]) -> None:
    good = _serving(cluster)

    def kill(begun: float) -> list[str]:
        _at(cluster, 10, begun)
        moment, kills = time.monotonic(), 0
        pod = cluster.kubelet.of_revision(cluster.deployed.rollout()["status"]["currentPodHash"])
        while cluster.deployed.phase() != "Degraded" and time.monotonic() < moment + 60:
            if pod.process is not None and pod.process.poll() is None:
                os.killpg(pod.process.pid, signal.SIGKILL)
                kills += 1
            time.sleep(0.5)
        gone = _weight_since(cluster, 0, moment)
        assert gone is not None, "a canary without a pod keeps its weight"
        return [
            f"its only pod was killed at weight 10, and {kills - 1} times more when its container was started again",
            f"the controller took the weight away {gone - moment:.1f} s after the first kill, the guardrails ended it",
        ]

    story = _ship(cluster, told, "a good model, its predictor killed", world.WAITING["good"].pop(0), kill)
    assert story.phase == "Degraded"
    assert story.canary_weights == [10, 0]
    assert "canary-traffic" in {verdict.split()[0] for verdict in story.verdicts}
    _revert(cluster, good)


def test_a_second_deploy_starts_over_and_a_sync_leaves_the_weights(cluster: Cluster, told: list[Story]) -> None:
    first, second = world.WAITING["good"].pop(0), world.WAITING["good"].pop(0)

    def again(begun: float) -> list[Any]:
        _at(cluster, 10, begun)
        time.sleep(3)
        again_at = cluster.deployed.deploy(second)
        restarted = eventually(lambda: _weight_since(cluster, 10, again_at), 60, "the second canary starts over")
        _at(cluster, 25, restarted)
        before = len(cluster.mesh.timeline)
        argo_cd.sync(cluster.kube, cluster.deployed.with_model(second))
        time.sleep(3)
        assert len(cluster.mesh.timeline) == before, "a sync of Argo CD's changed the weights"
        moment = time.monotonic()
        argo_cd.apply(cluster.kube, cluster.deployed.with_model(second))
        back = eventually(lambda: _weight_since(cluster, 25, moment), 30, "the controller puts the weights back")
        seen = [now.canary for now in cluster.mesh.since(moment)[1:]]
        return [
            f"version {second.version} was deployed while version {first.version} was at 10, "
            f"which saw {sum(one.version == first.version for one in cluster.callers.since(begun))} requests",
            "manifests applied again at 25 as Argo CD does, with what a rollout owns left alone: weights stayed",
            f"applied again with nothing left alone: weights {seen}, back after {back - moment:.1f} s",
            second,
        ]

    story = _ship(cluster, told, "a good model, then another in mid-canary", first, again)
    assert story.phase == "Healthy", story.verdicts
    assert story.version == second.version
    assert max(_weights_of(story, first.version)) <= 25
    assert story.canary_weights[-3:] == [50, 100, 0]
    assert story.failed == 0


def test_predictors_that_serve_know_their_side(cluster: Cluster) -> None:
    """Last: the pod that serves was a canary once, and its track was told anew without a restart."""
    stable = cluster.deployed.rollout()["status"]["stableRS"]
    found = cluster.mesh.query(f'prediction_latency_ms_count{{revision="{stable}",track="stable"}}')
    assert found, f"no requests measured as stable's for revision {stable}"


def _ship(cluster: Cluster, told: list[Story], name: str, model: Model, meanwhile: Any = None) -> Story:
    story = ship(cluster.deployed, cluster.mesh, cluster.callers, name, model, meanwhile)
    told.append(story)
    return story


def _revert(cluster: Cluster, version: str) -> None:
    """One revert in Git: the model that serves is the one that is declared again."""
    model = next(known for known in world.PUBLISHED if known.version == version)
    cluster.deployed.deploy(model)
    eventually(lambda: stories.ended(cluster.deployed, model) == "Healthy", 60, f"version {version} is healthy again")


def _serving(cluster: Cluster) -> str:
    """The version that callers get."""
    found = {one.version for one in cluster.callers.asked[-20:]}
    assert len(found) == 1, f"several versions serve: {found}"
    return str(found.pop())


def _at(cluster: Cluster, weight: int, since: float) -> float:
    """Waits until the canary has a weight; the moment."""
    return float(eventually(lambda: _weight_since(cluster, weight, since), 90, f"the canary is at {weight}"))


def _weight_since(cluster: Cluster, weight: int, since: float) -> float | None:
    return next((seen.at for seen in cluster.mesh.timeline if seen.at > since and seen.canary == weight), None)


def _weights_of(story: Story, version: str) -> list[int]:
    """The canary's weights while a version answered."""
    until = max(one.at for one in story.asked if one.version == version)
    return [seen.canary for seen in story.weights if seen.at < until]


def _champion() -> str:
    found = registry.find(CHURN, registered_models.CHAMPION)
    return str(found.version) if found else ""


def _cost(seconds: float) -> str:
    return f"`make test-cluster` with the binaries there: {seconds:.0f} s for the canaries, on two cores"
