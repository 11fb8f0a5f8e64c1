"""From Git to real pods: the whole platform on a real node by Argo CD, a day of orders, canaries, what breaks, the way
back. `make test-node`; the page is docs/node.md.

Real: etcd, API server, scheduler, kubelet, containerd, CNI, CoreDNS, kube-proxy, NetworkPolicies by kube-router, a
registry, Argo CD, KServe, Argo Rollouts, Prometheus, every pod of ours by its digest. Orders are CDNOW's, all of them.
Simulated: who asks for predictions, and what came of the answers. Envoy stands before the pods; no pod has a sidecar.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import argo_cd_servers
import cluster
import control_plane
import httpx
import node
import picture
import pytest
import registry
import stories
import yaml
from argo_cd_servers import Application
from control_plane import eventually
from git_server import Repository
from installed import PIPELINE, STORES, Installed
from kube import Kube, Object, Refused
from mesh import Mesh
from shipping import APPLICATION, Customers, Shipping
from stories import Story
from world import Model

from plumbline import files
from plumbline.lake import tables as lake
from plumbline.registry import registered_models
from plumbline.servers import services
from plumbline.servers.services import HOST
from plumbline.settings import ROOT, settings
from plumbline.state import ledger, releases
from products.churn import CHURN
from toolchain import cluster_binaries, cluster_secrets, compose, images

pytestmark = [pytest.mark.node, pytest.mark.timeout(3600)]

DAY, NOW = "1998-06-30", "1998-07-01T00:00:00Z"
DAILY, TRAINING = "retail_features", "ml_training_pipeline"
HOME = ROOT / ".plumbline" / "test-node"
REPORT = ROOT / ".plumbline" / "report" / "node.md"
PICTURE = REPORT.with_name("from-push-to-champion.svg")
BROUGHT = ("plumbline", "platform-dev", "stores-dev", "pipeline-dev")
"""Applications that are well before there is a model."""

SOCKET = "/tmp"  # noqa: S108 (the container's)
AWAY = 300
"""Seconds without the bucket."""

PREDICTORS = {"app": "isvc.churn-predictor"}


@dataclass
class World:
    """What a story plays with, and what was told so far."""

    kube: Kube
    digests: dict[str, str]
    known: dict[str, str]
    repository: Repository
    platform: Installed
    shipping: Shipping
    mesh: Mesh
    told: list[tuple[str, float, str]] = field(default_factory=list)
    """What was done, after how many seconds what came of it."""
    canaries: list[Story] = field(default_factory=list)
    versions: dict[str, Model] = field(default_factory=dict)

    def tell(self, did: str, since: float, came: str) -> None:
        took = time.monotonic() - since
        print(f"{took:6.1f} s  {did}: {came}", flush=True)
        self.told.append((did, took, came))

    def app(self, name: str = APPLICATION) -> Application | None:
        return argo_cd_servers.applications(self.kube).get(name)

    def well(self, name: str = APPLICATION) -> bool:
        """Whether the newest commit is what runs."""
        found, head = self.app(name), self.repository.head
        return found is not None and (found.sync, found.health, found.revision) == ("Synced", "Healthy", head)

    def ask(self, customer: int) -> tuple[int, dict[str, Any]]:
        """Status and answer about a customer, through Envoy."""
        body = {"instances": [{"customer_id": customer}]}
        try:
            answer = httpx.post(
                f"http://{HOST}:{self.mesh.port}/v1/models/churn-predictor:predict", json=body, timeout=5
            )
        except httpx.HTTPError as error:
            return 0, {"error": str(error)}
        return answer.status_code, answer.json() if answer.status_code == 200 else {"error": answer.text}


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """A cluster as one is given to us, with Argo CD on it and nothing of this repository but Secrets."""
    if lacking := [*node.missing(), *cluster_binaries.missing()]:
        pytest.fail(f"{', '.join(lacking)} not here: docs/deploy.md says what `make test-node` needs")
    images.require_engine()
    for left in HOME.iterdir() if HOME.exists() else []:
        if left.name != "registry":  # what is pushed already
            shutil.rmtree(left) if left.is_dir() else left.unlink()
    HOME.mkdir(parents=True, exist_ok=True)
    with pytest.MonkeyPatch.context() as patch, ExitStack() as last:
        patch.setenv("PLUMBLINE_CACHE", str(settings().cache))
        patch.setenv("PLUMBLINE_HOME", str(HOME))
        patch.setenv("PLUMBLINE_NOW", NOW)
        settings.cache_clear()
        last.callback(settings.cache_clear)
        last.callback(services.stop_all)
        last.callback(cluster.down)
        begun = time.monotonic()
        kube, digests = cluster.up()
        up = time.monotonic()
        compose.write_secrets(HOME / ".env")
        known = compose.read_secrets(HOME / ".env")
        repository = Repository(HOME / "git")
        last.callback(repository.stop)
        written = registry.written(repository.read(DIGESTS), digests)
        repository.commit("images by the digests that were pushed", {DIGESTS: written})
        argo_cd_servers.install(kube)
        argo_cd_servers.start(control_plane.kubeconfig())
        last.callback(argo_cd_servers.stop)
        platform = Installed(kube, known)
        mesh = Mesh(kube, APPLICATION, lambda address: address)
        mesh.prometheus = services.free_port()
        made = World(kube, digests, known, repository, platform, Shipping(kube, repository, platform), mesh)
        made.told.append(("a cluster of one node", up - begun, "Ready; names, policies, controllers"))
        yield made
        files.write_whole(REPORT, page(made))


DIGESTS = "k8s/image-digests/kustomization.yaml"


@pytest.fixture(scope="module")
def laptop(world: World) -> Iterator[None]:
    """This process as the laptop of who ships models."""
    with world.platform.laptop():
        yield


def test_one_object_brings_the_platform_from_git(world: World) -> None:
    begun = time.monotonic()
    for secret in cluster_secrets.objects(world.known):
        world.kube.apply(secret, manager="person")
    world.kube.apply(yaml.safe_load(world.repository.read("k8s/apps/root.yaml")), manager="person")
    for name in BROUGHT:
        eventually(lambda name=name: world.well(name), 900, f"{name} is well: {world.app(name)}")
    pods = [pod for namespace in (STORES, PIPELINE) for pod in world.platform.pods(namespace) if running(pod)]
    world.tell(
        "`root.yaml` applied, by a person, with the Secrets",
        begun,
        f"{', '.join(BROUGHT)} Synced and Healthy: {len(pods)} pods run",
    )
    assert len(pods) >= 8
    words = "`plumb promote --env … VERSION` writes them"
    eventually(lambda: words in getattr(world.app(), "message", ""), 120, f"churn-dev is refused: {world.app()}")


def test_pods_are_what_was_pushed_and_carry_no_token(world: World) -> None:
    pods = [pod for namespace in (STORES, PIPELINE) for pod in world.platform.pods(namespace)]
    assert pods
    pushed = {digest.partition("@")[2] for digest in world.digests.values()}
    for pod in pods:
        name = pod["metadata"]["name"]
        for container in pod["spec"]["containers"]:
            assert container["image"].partition("@")[2] in pushed, f"{name}: {container['image']}"
        sources = [
            source
            for volume in pod["spec"].get("volumes", [])
            for source in volume.get("projected", {}).get("sources", [])
        ]
        token = any("serviceAccountToken" in source for source in sources)
        assert token == name.startswith("airflow-scheduler"), f"{name} {'has' if token else 'lacks'} a token"
        assert not any("hostPath" in volume for volume in pod["spec"].get("volumes", [])), name


def test_a_day_of_orders_runs_as_pods(world: World) -> None:
    begun, seen = time.monotonic(), dict[str, Object]()

    def look() -> None:
        for pod in world.platform.pods(PIPELINE, **{"app.kubernetes.io/managed-by": "airflow"}):
            seen[pod["metadata"]["labels"]["app.kubernetes.io/component"]] = pod

    for dag, run in ((DAILY, world.platform.trigger(DAILY, DAY)), (TRAINING, "")):
        for _ in world.platform.ended(dag, run or world.platform.newest(dag), 1800):
            look()
        told = "every gate passed" if dag == DAILY else "trained, registered, champion"
        world.tell(
            f"`{dag}`, {'all orders of the shop' if dag == DAILY else 'which its features started'}", begun, told
        )
        begun = time.monotonic()
    of = {*CHURN.daily_stages, *CHURN.training_stages}
    assert len(of & set(seen)) >= len(of) - 2, f"tasks that no pod was seen of: {of - set(seen)}"
    for task, pod in seen.items():
        assert pod["spec"]["serviceAccountName"] == "tasks", task
        assert not any("persistentVolumeClaim" in volume for volume in pod["spec"]["volumes"]), task


def test_the_exporter_sees_state_and_redis(world: World) -> None:
    (pod,) = world.platform.pods(PIPELINE, **{"app.kubernetes.io/name": "exporter"})
    url = f"http://{pod['status']['podIP']}:9102/metrics"

    def told() -> bool:
        return 'online_release_id{product="churn"} 1.0' in httpx.get(url, timeout=30).text

    begun = time.monotonic()
    eventually(told, 120, "the exporter tells of release 1")
    world.tell("the exporter asked", begun, "it knows from bucket and Redis that release 1 is online")


def test_the_first_model_comes_by_one_commit(world: World, laptop: None) -> None:
    champion = registered_models.find(CHURN.model, registered_models.CHAMPION)
    assert champion is not None
    world.shipping.shorten(f"http://{HOST}:{world.mesh.prometheus}")
    model = world.shipping.published(str(champion.version))
    begun = world.shipping.promote(model)
    eventually(lambda: world.kube.get(world.mesh._virtual_service_path()), 300, "the VirtualService is there")
    world.mesh.start_all()
    eventually(lambda: world.ask(1)[0] == 200, 300, f"an answer: {world.app()}")
    world.tell("`plumb promote` of the first model, merged", begun, f"version {model.version} answers from a real pod")
    eventually(world.well, 300, f"churn-dev is well: {world.app()}")
    world.versions["first"] = model
    assert world.ask(1)[1]["model_version"] == model.version


def test_a_good_model_is_promoted_step_by_step(world: World, laptop: None) -> None:
    good = world.shipping.made("retrained")
    with Customers(world.mesh.port) as customers:
        eventually(lambda: len(customers.asked) > 100, 60, "customers are answered")
        story = _ship(world, customers, "a good model", good)
    assert story.phase == "Healthy", story.verdicts
    assert story.canary_weights == [10, 25, 50, 100, 0]
    assert story.failed == 0
    eventually(lambda: _champion() == good.version, 240, "the alias has moved")
    moved = time.monotonic()
    world.tell(
        "a good model, `git push` to champion", story.begun, f"10, 25, 50, 100; {story.exposed} requests meanwhile"
    )
    world.versions["good"] = good
    first = next(one.at for one in story.asked if one.version == good.version)
    moments = {"push": story.begun, "its first answer": first, "promoted": story.ended, "alias moved": moved}
    files.write_whole(PICTURE, picture.drawn(story, moments))
    eventually(world.well, 120, f"churn-dev is well: {world.app()}")


@pytest.mark.parametrize("kind", ["leaky", "swapped", "features"])
def test_a_bad_model_is_stopped(world: World, laptop: None, kind: str) -> None:
    good, champion = world.versions["good"], _champion()
    bad = world.shipping.made(kind)
    with Customers(world.mesh.port) as customers:
        eventually(lambda: len(customers.asked) > 100, 60, "customers are answered")
        story = _ship(world, customers, f"a bad model: {kind}", bad)
        assert story.phase == "Degraded", story.verdicts
        assert story.canary_weights[-1] == 0 and 100 not in story.canary_weights
        assert story.failed == 0
        reverted = world.shipping.revert(bad)
        eventually(lambda: world.shipping.version() == good.version and world.well(), 300, f"well: {world.app()}")
    world.tell(f"{kind}: its push reverted", reverted, "Synced and Healthy")
    assert _champion() == champion


def test_who_may_not_ask_is_refused(world: World) -> None:
    """Policies are kube-router's work: what is refused here is allowed by nothing else."""
    begun = time.monotonic()
    asks = [
        (PIPELINE, "deploy/exporter", ("mlflow", 5000), True),
        (PIPELINE, "deploy/exporter", ("s3.stores", 7070), True),
        (PIPELINE, "deploy/exporter", ("spark", 15002), False),
        (PIPELINE, "deploy/mlflow", ("spark", 15002), False),
        (PIPELINE, "deploy/spark", ("airflow-api", 8080), False),
        (APPLICATION, "deploy/churn-judge", ("s3.stores", 7070), True),
        (APPLICATION, "deploy/churn-judge", ("postgres.stores", 5432), False),
        (APPLICATION, "deploy/churn-judge", (f"mlflow.{PIPELINE}", 5000), False),
    ]
    for namespace, pod, where, may in asks:
        code = f"import socket; socket.create_connection({where!r}, 3)"
        done = kubectl("--namespace", namespace, "exec", pod, "--", "python", "-c", code)
        refused = "refused" in done.stderr or "timed out" in done.stderr
        assert (done.returncode == 0) == may and refused == (not may), f"{pod} to {where}: {done.stderr[-300:]}"
    count = sum(not may for *_, may in asks)
    world.tell("connections that no NetworkPolicy lets through", begun, f"{count} of {count} refused, the others made")


def test_a_kubelet_that_starts_again_keeps_its_pods(world: World, laptop: None) -> None:
    """It calls them unready until it has probed them anew: an only predictor is out of its Service for that moment."""
    before = {pod["metadata"]["uid"] for pod in world.platform.pods(APPLICATION)}
    with Customers(world.mesh.port) as customers:
        eventually(lambda: len(customers.asked) > 50, 60, "customers are answered")
        begun = time.monotonic()
        services.stop("kubelet")
        time.sleep(15)
        started = time.monotonic()
        assert all(one.status == 200 for one in customers.since(begun, started)), "without a kubelet pods go on"
        node.start_kubelet(control_plane.kubeconfig())
        eventually(lambda: cluster.ready(world.kube), 90, "the node is Ready")
        time.sleep(10)
        missed = [one for one in customers.since(started) if one.status != 200]
        assert all(one.status == 200 for one in customers.asked[-40:])
        count = len(customers.since(begun))
    assert before == {pod["metadata"]["uid"] for pod in world.platform.pods(APPLICATION)}
    took = missed[-1].at - missed[0].at if missed else 0
    assert took < 10
    came = f"the same pods; of {count} requests none failed meanwhile, {len(missed)} in {took:.1f} s after its start"
    world.tell("the kubelet away for 15 s", begun, came)


def test_a_killed_predictor_comes_back_without_the_registry(world: World, laptop: None) -> None:
    address = registry.start()
    registry.stop()
    assert registry.gone(address)
    try:
        with Customers(world.mesh.port) as customers:
            eventually(lambda: len(customers.asked) > 50, 60, "customers are answered")
            begun = time.monotonic()
            (pod,) = world.platform.pods(APPLICATION, **PREDICTORS)
            world.kube.delete(f"/api/v1/namespaces/{APPLICATION}/pods/{pod['metadata']['name']}", grace=0)
            eventually(lambda: any(one.status != 200 for one in customers.since(begun)) or None, 30, "it is missed")
            eventually(lambda: all(one.status == 200 for one in customers.asked[-40:]), 120, "answers again")
            took = time.monotonic() - begun
            failed = sum(one.status != 200 for one in customers.since(begun))
    finally:
        registry.start()
    assert took < 120
    world.tell(
        "the only predictor's pod killed, the registry away",
        begun,
        f"{failed} requests without an answer, then another pod's",
    )


def test_an_image_that_does_not_exist_reaches_nobody(world: World, laptop: None) -> None:
    good = world.versions["good"]
    text = world.repository.read(DIGESTS)
    digest = world.digests["predictor"].partition("@")[2]
    with Customers(world.mesh.port) as customers:
        eventually(lambda: len(customers.asked) > 50, 60, "customers are answered")
        begun = time.monotonic()
        commit = world.repository.commit(
            "an image that nobody pushed", {DIGESTS: text.replace(digest, f"sha256:{64 * '1'}")}
        )
        argo_cd_servers.refresh(world.kube, APPLICATION)
        eventually(lambda: world.shipping.phase() == "Degraded", 300, f"the rollout is given up: {world.app()}")
        world.tell("a canary whose image does not exist", begun, "given up by its deadline, weight 0 all the time")
        assert {seen.canary for seen in world.mesh.since(begun)} == {0}
        reverted = time.monotonic()
        world.repository.revert(commit)
        terminate(world, APPLICATION)
        argo_cd_servers.refresh(world.kube, APPLICATION)
        eventually(world.well, 300, f"churn-dev is well: {world.app()}")
        failed = sum(one.status != 200 for one in customers.since(begun))
    assert failed == 0
    assert world.ask(1)[1]["model_version"] == good.version
    world.tell(
        "that commit reverted, its sync ended (`argocd app terminate-op`)",
        reverted,
        "Synced and Healthy; no request failed",
    )


def test_a_drained_node_takes_one_predictor_at_a_time(world: World, laptop: None) -> None:
    overlay = "k8s/environments/dev/kustomization.yaml"
    read = world.repository.read(overlay)
    commit = world.repository.commit(
        "two predictors", {overlay: read.replace("minReplicas, value: 1", "minReplicas, value: 2")}
    )
    argo_cd_servers.refresh(world.kube, APPLICATION)
    ready = lambda: [pod for pod in world.platform.pods(APPLICATION, **PREDICTORS) if running(pod)]  # noqa: E731
    eventually(lambda: len(ready()) == 2 and _may_go(world) == 1, 180, "two predictors, of which one may go")
    with Customers(world.mesh.port) as customers:
        eventually(lambda: len(customers.asked) > 50, 60, "customers are answered")
        begun = time.monotonic()
        world.kube.patch(f"/api/v1/nodes/{node.NAME}", {"spec": {"unschedulable": True}})
        first, second = ready()
        evict(world.kube, first)
        time.sleep(3)
        with pytest.raises(Refused, match="disruption budget"):
            evict(world.kube, second)
        world.kube.patch(f"/api/v1/nodes/{node.NAME}", {"spec": {"unschedulable": False}})
        eventually(lambda: len(ready()) == 2 and _may_go(world) == 1, 120, "another one is ready")
        evict(world.kube, second)
        eventually(lambda: len(ready()) == 2, 120, "and another one")
        failed = sum(one.status != 200 for one in customers.since(begun))
        count = len(customers.since(begun))
    world.tell(
        "the node drained with two predictors",
        begun,
        f"the second eviction refused by the budget; of {count} requests {failed} failed",
    )
    assert failed == 0
    world.repository.revert(commit)
    argo_cd_servers.refresh(world.kube, APPLICATION)
    eventually(world.well, 180, f"churn-dev is well: {world.app()}")


def test_one_commit_switches_the_order_stream_on(world: World, laptop: None) -> None:
    """A broker and the job come up; the job's pod is killed while two weeks of orders are sent as events."""
    where = {"k8s/stores/overlays/dev": "../../kafka", "k8s/pipeline/overlays/dev": "../../events"}
    texts = {}
    for overlay, component in where.items():
        made = yaml.safe_load(world.repository.read(f"{overlay}/kustomization.yaml"))
        made["components"].insert(0, component)
        texts[f"{overlay}/kustomization.yaml"] = yaml.safe_dump(made)
    begun = time.monotonic()
    commit = world.repository.commit("orders come as events too", texts)
    for name in ("stores-dev", "pipeline-dev"):
        argo_cd_servers.refresh(world.kube, name)
    stream = {"app.kubernetes.io/name": "stream"}
    eventually(lambda: any(running(pod) for pod in world.platform.pods(PIPELINE, **stream)), 300, "the stream runs")
    world.tell("the order stream switched on, `git push`", begun, "a broker and the job run")
    tasks = cluster_secrets.secrets(world.known)[PIPELINE]["tasks"]
    given = "".join(f"{name}='{tasks[name]}'\n" for name in ("PLUMBLINE_KAFKA_URL", "PLUMBLINE_SHOP_URL"))
    command = "set -a; . /dev/stdin; plumb events produce --from 1998-06-16 --rate 40 --json"
    begun = time.monotonic()
    with ThreadPoolExecutor(1) as pool:
        head = ["--namespace", PIPELINE, "exec", "-i", "deploy/exporter", "--"]
        producing = pool.submit(kubectl, *head, "sh", "-c", command, given=given)
        time.sleep(15)
        (pod,) = world.platform.pods(PIPELINE, **stream)
        world.kube.delete(f"/api/v1/namespaces/{PIPELINE}/pods/{pod['metadata']['name']}", grace=0)
        done = producing.result()
    assert done.returncode == 0, done.stderr[-1500:]
    sent = json.loads(done.stdout)["events"]
    eventually(lambda: landed() >= sent, 300, f"{sent} events have landed, {landed()} so far")
    assert landed() == sent > 500
    world.tell("two weeks of orders as events, the job's pod killed", begun, f"{sent:,} sent, each landed once")
    world.repository.revert(commit)
    for name in ("stores-dev", "pipeline-dev"):
        argo_cd_servers.refresh(world.kube, name)
        eventually(lambda name=name: world.well(name), 300, f"{name} is well: {world.app(name)}")


def landed() -> int:
    """How many events are in the lake; -1 when one is there twice."""
    table = lake.found("raw.order_events")
    events = table.to_pyarrow_table(columns=["event_id"])["event_id"].to_pylist() if table else []
    return len(events) if len(set(events)) == len(events) else -1


def test_the_bucket_is_away_for_five_minutes(world: World, laptop: None) -> None:
    """Who answers goes on; what they could not write meanwhile is written afterwards."""
    with Customers(world.mesh.port) as customers:
        eventually(lambda: len(customers.asked) > 50, 60, "customers are answered")
        begun = time.monotonic()
        with away(world, "s3"):
            time.sleep(AWAY)
        eventually(lambda: running_of(world, "s3"), 120, "the bucket is back")
        failed = sum(one.status != 200 for one in customers.since(begun))
        count = len(customers.since(begun))
        world.tell(f"the bucket away for {AWAY} s", begun, f"{count} requests, {failed} failed")
        assert failed == 0
        time.sleep(30)
    for pod in world.platform.pods(APPLICATION, **PREDICTORS):
        told = httpx.get(f"http://{pod['status']['podIP']}:8080/metrics", timeout=5).text
        refused, dropped = (
            re.findall(rf"^outcome_log_{what}_total{{.*}} (\S+)$", told, re.MULTILINE)
            for what in ("failures", "dropped")
        )
        assert sum(map(float, refused)) > 0, "no write was refused: the bucket was not away"
        assert sum(map(float, dropped)) == 0


def test_redis_is_lost(world: World, laptop: None) -> None:
    answer = kept(world)
    with away(world, "redis"):
        eventually(lambda: world.ask(1)[0] == 503, 60, "a predictor without Redis says so")
        wiped("1gi")
    begun = time.monotonic()
    eventually(lambda: running_of(world, "redis"), 120, "Redis is back, empty")
    for name in ("stores-dev", "pipeline-dev"):  # what the runbook says: users, then what is released
        synced(world, name)
    eventually(lambda: world.ask(1)[0] == 200, 300, "an answer again")
    assert kept(world) == answer
    world.tell(
        "Redis lost; `stores-dev` and `pipeline-dev` synced", begun, "the released rows are online, the same answer"
    )


def test_postgres_comes_back_from_its_backup(world: World, laptop: None) -> None:
    before = kept(world)
    dump = kubectl("--namespace", STORES, "exec", "postgres-0", "--", "pg_dumpall", "-h", SOCKET, "-U", "postgres")
    assert dump.returncode == 0, dump.stderr
    with away(world, "postgres"):
        wiped("5gi")
    eventually(lambda: running_of(world, "postgres"), 180, "Postgres is back, empty")
    begun = time.monotonic()
    head = ["--namespace", STORES, "exec", "-i", "postgres-0", "--"]
    done = kubectl(*head, "psql", "-q", "-h", SOCKET, "-U", "postgres", "-d", "postgres", given=dump.stdout)
    assert done.returncode == 0, done.stderr
    eventually(lambda: _champion_or_none() == before["champion"], 180, "MLflow knows the champion")
    assert kept(world) == before
    world.tell(
        f"Postgres lost, restored from {len(dump.stdout) // 1_000_000} MB of backup",
        begun,
        "the same models and champion",
    )


def test_the_cluster_is_lost_and_comes_back_from_git_bucket_and_database(world: World, laptop: None) -> None:
    before = kept(world)
    argo_cd_servers.stop()
    world.mesh.stop()
    services.stop_all(
        keep=set(services.running()) - {name for name in services.running() if name.startswith("forward-")}
    )
    cluster.down()
    for lost in ("etcd", "node", "pki", "kubeconfig", "kserve", "volumes/1gi"):  # Redis has the last
        gone = HOME / lost
        shutil.rmtree(gone) if gone.is_dir() else gone.unlink(missing_ok=True)
    begun = time.monotonic()
    world.kube, _ = cluster.up()
    world.platform.kube = world.shipping.kube = world.kube
    argo_cd_servers.install(world.kube)
    argo_cd_servers.start(control_plane.kubeconfig())
    for secret in cluster_secrets.objects(world.known):
        world.kube.apply(secret, manager="person")
    world.kube.apply(yaml.safe_load(world.repository.read("k8s/apps/root.yaml")), manager="person")
    port, world.mesh = world.mesh.prometheus, Mesh(world.kube, APPLICATION, lambda address: address)
    world.mesh.prometheus = port
    eventually(lambda: world.kube.get(world.mesh._virtual_service_path()), 900, f"churn-dev: {world.app()}")
    world.mesh.start_all()
    eventually(lambda: world.ask(1)[0] == 200, 900, f"an answer: {argo_cd_servers.applications(world.kube)}")
    world.tell("the cluster and Redis lost: back from Git, bucket and database", begun, "the first answer (RTO)")
    for name in (*BROUGHT, APPLICATION):
        eventually(lambda name=name: world.well(name), 900, f"{name} is well: {world.app(name)}")
    with world.platform.laptop():
        after = kept(world)
    assert after == before
    world.tell(
        "and all of it", begun, "Synced and Healthy; the same release, models, champion, ledger and first answer"
    )


def kept(world: World) -> dict[str, Any]:
    """What must outlive a cluster."""
    status, answer = world.ask(1)
    assert status == 200
    return {
        "release": releases.required(CHURN.name).release_id,
        "ledger": sum(event.get("stage") in ("release", "train", "register") for event in ledger.events(CHURN.name)),
        "models": {found.version: sorted(found.aliases) for found in registered_models.versions(CHURN.model)},
        "champion": _champion(),
        "answer": {name: answer[name] for name in ("model_version", "data_version")},
        "score": answer["predictions"][0]["churn_probability"],
    }


@contextmanager
def away(world: World, store: str) -> Iterator[None]:
    """A store with no pod meanwhile: the node takes no new one."""
    node_path, labels = f"/api/v1/nodes/{node.NAME}", {"app.kubernetes.io/name": store}
    world.kube.patch(node_path, {"spec": {"unschedulable": True}})
    world.kube.delete(f"/api/v1/namespaces/{STORES}/pods/{store}-0", grace=0)
    pending = lambda: all(pod["status"]["phase"] == "Pending" for pod in world.platform.pods(STORES, **labels))  # noqa: E731
    eventually(pending, 60, f"no {store}")
    try:
        yield
    finally:
        world.kube.patch(node_path, {"spec": {"unschedulable": False}})


def running_of(world: World, store: str) -> bool:
    """Whether a store's pod is ready."""
    return any(running(pod) for pod in world.platform.pods(STORES, **{"app.kubernetes.io/name": store}))


def wiped(volume: str) -> None:
    """Loses what a volume holds."""
    for left in (HOME / "volumes" / volume).iterdir():
        shutil.rmtree(left) if left.is_dir() else left.unlink()


def synced(world: World, name: str) -> None:
    """What `argocd app sync` does, and waits for: hooks run again though nothing differs."""
    path = f"{argo_cd_servers.APPLICATIONS}/{name}"
    before = world.kube.get(path) or {}
    operation = {
        "initiatedBy": {"username": "person"},
        "sync": {"revision": world.repository.head, "syncStrategy": {"hook": {}}},
    }
    world.kube.patch(path, {"operation": operation})

    def ended() -> bool:
        state = (world.kube.get(path) or {}).get("status", {}).get("operationState", {})
        was = before.get("status", {}).get("operationState", {}).get("startedAt")
        return state.get("startedAt") != was and state.get("phase") == "Succeeded"

    eventually(ended, 600, f"{name} is synced")


def terminate(world: World, name: str) -> None:
    """What `argocd app terminate-op` does: a sync waits for what cannot come up, and the next commit for the sync."""
    path = f"{argo_cd_servers.APPLICATIONS}/{name}"
    if (world.kube.get(path) or {}).get("status", {}).get("operationState", {}).get("phase") == "Running":
        world.kube.patch(path, {"status": {"operationState": {"phase": "Terminating"}}})


def _may_go(world: World) -> int:
    """How many predictors the budget lets go now."""
    found = world.kube.get(f"/apis/policy/v1/namespaces/{APPLICATION}/poddisruptionbudgets/churn")
    return int((found or {}).get("status", {}).get("disruptionsAllowed", 0))


def _champion_or_none() -> str | None:
    try:
        return _champion()
    except Exception:  # MLflow's database is on its way
        return None


def evict(kube: Kube, pod: Object) -> None:
    """What `kubectl drain` does with a pod. Raises Refused when a budget forbids it."""
    about = {name: pod["metadata"][name] for name in ("name", "namespace")}
    path = f"/api/v1/namespaces/{about['namespace']}/pods/{about['name']}/eviction"
    kube.call("POST", path, json={"apiVersion": "policy/v1", "kind": "Eviction", "metadata": about})


def kubectl(*command: str, given: str | None = None) -> subprocess.CompletedProcess[str]:
    """One command of a person's."""
    head = ["kubectl", "--kubeconfig", str(control_plane.kubeconfig())]
    return subprocess.run([*head, *command], capture_output=True, text=True, check=False, timeout=300, input=given)


def _ship(world: World, customers: Customers, name: str, model: Model) -> Story:
    story = stories.ship(world.shipping, world.mesh, customers, name, model, within=420)
    world.canaries.append(story)
    return story


def _champion() -> str:
    found = registered_models.find(CHURN.model, registered_models.CHAMPION)
    return str(found.version) if found else ""


def running(pod: Object) -> bool:
    """Whether all of a pod's containers are ready."""
    statuses = pod["status"].get("containerStatuses", [])
    return bool(statuses) and all(status["ready"] for status in statuses)


def size(folder: Path) -> int:
    """Megabytes on disk."""
    told = subprocess.run(["du", "-sm", str(folder)], capture_output=True, text=True, check=False).stdout
    return int(told.split()[0]) if told else 0


def page(world: World) -> str:
    """docs/node.md."""
    return "\n".join(
        [
            "<!-- Generated by `make test-node` from tests/node; do not edit. -->",
            "# The platform on a real node, from Git",
            "",
            *(f"{line}" for line in (__doc__ or "").split("\n\n", 1)[1].strip().splitlines()),
            "",
            "| what was done | what came of it | after |",
            "|---|---|---|",
            *(f"| {did} | {came} | {took:.0f} s |" for did, took, came in world.told),
            "",
            "| what was shipped | ended | canary's weight | requests it saw | its share of them | guardrails found |",
            "|---|---|---|---|---|---|",
            *map(stories._row, world.canaries),
            "",
            "![A canary's weight, from a good model's push until it is champion](images/from-push-to-champion.svg)",
            "",
            "Costs, on two cores:",
            "",
            *(f"- {line}" for line in cluster_binaries.costs()),
            f"- images in the registry: {registry.size():,} MB; the node's folder, with them unpacked: "
            f"{size(HOME / 'node'):,} MB",
            "",
        ]
    )
