"""From `git push` to champion by a real Argo CD, on a control plane of its own that begins empty.

A person makes namespace and Secrets, applies Argo CD's settings and root.yaml, and from then on only commits. The page
is docs/argo-cd.md.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field

import control_plane
import pytest
import stories
import world
import yaml
from control_plane import eventually
from deployed import ENDED, NAMESPACE, Deployed
from kube import Kube, Object
from kubelet import Kubelet
from mesh import Mesh
from pods import bucket
from stories import AROUND, Story
from traffic import RATE, Callers
from world import Model

from plumbline import files
from plumbline.registry import registered_models
from plumbline.servers import services
from plumbline.servers.services import HOST
from plumbline.settings import ROOT, settings
from products.churn import CHURN
from serving import promote
from tests.node import argo_cd_servers
from tests.node.argo_cd_servers import Application
from tests.node.git_server import Repository
from toolchain import cluster_binaries

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

REPORT = ROOT / ".plumbline" / "report" / "argo-cd.md"
WHOLE = 7
"""Rows of a whole run; a part of it writes no page."""

APPS = "k8s/apps"
OVERLAYS = "k8s/churn/overlays"
OVERLAY = f"{OVERLAYS}/dev"
MODEL = f"{OVERLAY}/{promote.MODEL_FILE}"
NAME = "churn-dev"
BUDGET = f"/apis/policy/v1/namespaces/{NAMESPACE}/poddisruptionbudgets/churn"
NEEDED = {"crds", "etcd", "kube-apiserver", "kube-controller-manager", "rollouts-controller", "argocd"}
AUTOSCALER = "horizontal-pod-autoscaler-controller"
PART_OF = "app.kubernetes.io/part-of"


class FromGit(Deployed):
    """What is deployed by commits; `commits` has the newest of each model version."""

    def __init__(self, kube: Kube, prometheus: str, repository: Repository) -> None:
        super().__init__(kube, prometheus)
        self.repository, self.commits = repository, dict[str, str]()

    def deploy(self, model: Model) -> float:
        """What merging a promotion does: the model's file, in words of `plumb promote`, is committed and pushed."""
        version = registered_models.find(CHURN.model, model.version)
        assert version is not None
        text = promote.model_file(CHURN, version, model.uri)
        begun = time.monotonic()
        self.commits[model.version] = self.repository.commit(f"dev gets version {model.version}", {MODEL: text})
        argo_cd_servers.refresh(self.kube, NAME)
        return begun

    def revert(self, model: Model) -> float:
        """Takes the commit of a model back. Returns the moment of the push (monotonic)."""
        self.repository.revert(self.commits[model.version])
        argo_cd_servers.refresh(self.kube, NAME)
        return time.monotonic()

    def run_like_prod(self) -> None:
        """Commits overlay dev as the tests run it: short analyses, a lake in a folder, the job that moves the alias."""
        read = self.repository.read
        made, prod = (yaml.safe_load(read(f"{OVERLAYS}/{of}/kustomization.yaml")) for of in ("dev", "prod"))
        made["components"].insert(0, "../../../predictor/champion")
        made["replacements"] = prod["replacements"]
        env = self.settling["spec"]["template"]["spec"]["containers"][0]["env"]
        change = [{"op": "replace", "path": "/spec/template/spec/containers/0/env", "value": env}]
        made["patches"] += [{"path": "short.yaml"}, {"target": {"kind": "Job"}, "patch": yaml.safe_dump(change)}]
        (rollout,) = (found for found in self.objects if found["kind"] == "Rollout")
        kept = ("apiVersion", "kind", "metadata", "spec")
        short = {name: rollout[name] for name in kept} | {"metadata": {"name": rollout["metadata"]["name"]}}
        data = next(found["data"] for found in self.objects if found["metadata"]["name"].startswith("churn-settings"))
        texts = {
            "kustomization.yaml": yaml.safe_dump(made),
            "short.yaml": yaml.safe_dump(short),
            "settings.env": "".join(f"{name}={value}\n" for name, value in data.items()),
        }
        self.repository.commit("dev like prod", {f"{OVERLAY}/{name}": text for name, text in texts.items()})
        argo_cd_servers.refresh(self.kube, NAME)


@dataclass
class Synced:
    """What a story plays with, and what was told so far."""

    kube: Kube
    repository: Repository
    deployed: FromGit
    mesh: Mesh
    last: ExitStack
    """What is stopped at the end."""
    callers: list[Callers] = field(default_factory=list)
    told: list[tuple[str, str, float]] = field(default_factory=list)
    """What a person did, what came of it, after how many seconds."""
    canaries: list[Story] = field(default_factory=list)

    def app(self, name: str = NAME) -> Application | None:
        return argo_cd_servers.applications(self.kube).get(name)

    def all_is_well(self, name: str = NAME) -> bool:
        """Whether the newest commit is what runs."""
        found, head = self.app(name), self.repository.head
        return found is not None and (found.sync, found.health, found.revision) == ("Synced", "Healthy", head)

    def tell(self, did: str, came: str, since: float) -> None:
        took = time.monotonic() - since
        print(f"{took:6.1f} s  {did}: {came}", flush=True)
        self.told.append((did, came, took))


@pytest.fixture(scope="module")
def synced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Synced]:
    """Kubernetes, KServe, Argo Rollouts and Argo CD as they are installed; nothing of this repository yet."""
    if lacking := NEEDED.intersection(cluster_binaries.missing()):
        pytest.fail(f"{', '.join(lacking)}: not built; `make cluster-binaries` builds them")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PLUMBLINE_HOME", str(tmp_path_factory.mktemp("argo-cd")))
        patch.setenv("PLUMBLINE_NOW", world.NOW.isoformat())
        patch.setattr(world, "TO_SHIP", ("worse", "good"))
        settings.cache_clear()
        with ExitStack() as last:
            last.callback(world.PUBLISHED.clear)  # the next module's numbers begin anew
            last.callback(services.stop_all)
            last.callback(control_plane.stop)
            kube = control_plane.start(False, (*control_plane.CONTROLLERS, AUTOSCALER))
            world.make()
            argo_cd_servers.install(kube)
            last.callback(argo_cd_servers.stop)
            argo_cd_servers.start(control_plane.kubeconfig())
            made = _made(kube, tmp_path_factory, last)
            yield made
            if len(made.told) == WHOLE:
                files.write_whole(REPORT, _page(made))
    settings.cache_clear()


def _made(kube: Kube, tmp_path_factory: pytest.TempPathFactory, last: ExitStack) -> Synced:
    repository = Repository(tmp_path_factory.mktemp("git"))
    last.callback(repository.stop)
    repository.commit("no pods but churn's", _only_churn(repository))
    mesh = Mesh(kube, NAMESPACE)
    mesh.prometheus = services.free_port()
    world.publish("good")
    world.prepare()
    deployed = FromGit(kube, f"http://{HOST}:{mesh.prometheus}", repository)
    kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    for secret in deployed._given():
        kube.apply(secret)
    kubelet = Kubelet(kube, tmp_path_factory.mktemp("pods"), bucket(world.bucket()))
    kubelet.start()
    last.callback(kubelet.stop)
    return Synced(kube, repository, deployed, mesh, last)


def _only_churn(repository: Repository) -> dict[str, str]:
    """What Argo CD is told to bring, without what the stand-in for a kubelet cannot run."""
    names = [f"{APPS}/kustomization.yaml", f"{APPS}/products.yaml"]
    apps, products = (yaml.safe_load(repository.read(name)) for name in names)
    apps["resources"] = ["project.yaml", "platform.yaml", "products.yaml", "environments.yaml"]
    listed = products["spec"]["generators"][0]["matrix"]["generators"][0]["list"]
    listed["elements"] = [each for each in listed["elements"] if each["product"] == "churn"]
    return dict(zip(names, map(yaml.safe_dump, (apps, products)), strict=True))


def test_the_root_brings_the_platform(synced: Synced) -> None:
    begun = time.monotonic()
    synced.kube.apply(yaml.safe_load(synced.repository.read("k8s/apps/root.yaml")))
    for name in ("plumbline", "platform-dev"):
        eventually(lambda name=name: synced.all_is_well(name), 240, f"{name} is well: {synced.app(name)}")
    synced.tell("root.yaml applied to a cluster without a platform", "`platform-dev` Synced and Healthy", begun)
    assert set(argo_cd_servers.applications(synced.kube)) == {"plumbline", "platform-dev", "churn-dev"}


def test_an_environment_without_a_model_is_refused_in_admission_s_words(synced: Synced) -> None:
    words = "`plumb promote --env … VERSION` writes them"
    eventually(lambda: words in getattr(synced.app(), "message", ""), 120, f"churn-dev is refused: {synced.app()}")


def test_a_promoted_model_comes_up_and_the_alias_follows(synced: Synced) -> None:
    first = world.PUBLISHED[0]
    synced.deployed.run_like_prod()
    begun = synced.deployed.deploy(first)
    eventually(lambda: synced.kube.get(synced.mesh._virtual_service_path()), 200, "the VirtualService is there")
    synced.mesh.start_all()
    synced.last.callback(synced.mesh.stop)
    eventually(synced.all_is_well, 240, f"churn-dev is well: {synced.app()}")
    synced.tell(f"the first model (version {first.version}) pushed", "Synced and Healthy, its pods answer", begun)
    assert eventually(lambda: _hook(synced, first), 60, "the job that moves the alias") == "Succeeded"
    assert _champion() == first.version
    synced.callers.append(Callers(synced.mesh.port))
    synced.callers[0].start()
    synced.last.callback(synced.callers[0].stop)
    eventually(lambda: len(synced.callers[0].asked) > AROUND * RATE, 30, "version 1 is asked")


def test_what_is_changed_by_hand_is_put_back(synced: Synced) -> None:
    begun = _change_by_hand(synced)
    eventually(lambda: not _changed(synced), 120, "the label is put back")
    synced.tell("a label changed by hand", "put back by self-heal", begun)


def test_a_good_model_ramps_and_the_alias_follows(synced: Synced) -> None:
    model = world.WAITING["good"].pop(0)
    healed: list[float] = []

    def by_hand(begun: float) -> list[str]:
        eventually(lambda: synced.mesh.weights()[0] == 10, 120, "the canary is at 10")
        healed.append(_change_by_hand(synced))
        eventually(lambda: synced.mesh.weights()[0] == 50, 120, "the canary is at 50")
        assert _changed(synced), "a sync that waits for the Rollout is all that Argo CD does meanwhile"
        return []

    story = _ship(synced, "a good model", model, by_hand)
    assert story.phase == "Healthy", story.verdicts
    assert story.canary_weights == [10, 25, 50, 100, 0]
    assert story.failed == 0
    assert eventually(lambda: _hook(synced, model), 90, "the job that moves the alias") == "Succeeded"
    synced.tell(f"a good model (version {model.version}) pushed", "10, 25, 50, 100, then the alias moved", story.begun)
    assert _champion() == model.version
    eventually(lambda: not _changed(synced), 120, "the label is put back")
    synced.tell("a label changed by hand at weight 10", "still so at 50; put back after the sync", healed[0])
    eventually(synced.all_is_well, 60, f"churn-dev is well: {synced.app()}")


def test_a_worse_model_is_stopped_and_a_revert_is_taken_at_once(synced: Synced) -> None:
    champion, bad = _champion(), world.WAITING["worse"].pop(0)
    story = _ship(synced, "a worse model", bad)
    assert story.phase == "Degraded"
    assert story.canary_weights == [10, 0]
    eventually(lambda: getattr(synced.app(), "health", "") == "Degraded", 30, "churn-dev is Degraded")
    assert _hook(synced, bad) is None and _champion() == champion
    synced.tell(f"a worse model (version {bad.version}) pushed", "aborted at 10, Degraded, alias stays", story.begun)
    reverted = synced.deployed.revert(bad)
    eventually(lambda: synced.deployed.version() == champion and synced.all_is_well(), 300, f"well: {synced.app()}")
    synced.tell("that push reverted", "Synced and Healthy", reverted)


def _ship(synced: Synced, name: str, model: Model, meanwhile: object = None) -> Story:
    story = stories.ship(synced.deployed, synced.mesh, synced.callers[0], name, model, meanwhile)
    synced.canaries.append(story)
    return story


def _hook(synced: Synced, model: Model) -> str | None:
    """How the pod of the job that moves the alias ended; None before that."""
    pods = f"/api/v1/namespaces/{NAMESPACE}/pods"
    found = synced.kube.items(pods, labelSelector=f"job-name=churn-champion-{model.version}")
    return next((phase for pod in found if (phase := pod["status"].get("phase")) in ENDED), None)


def _champion() -> str:
    found = registered_models.find(CHURN.model, registered_models.CHAMPION)
    return str(found.version) if found else ""


def _change_by_hand(synced: Synced) -> float:
    synced.kube.patch(BUDGET, {"metadata": {"labels": {PART_OF: "somebody"}}})
    return time.monotonic()


def _changed(synced: Synced) -> bool:
    budget: Object | None = synced.kube.get(BUDGET)
    return budget is None or budget["metadata"]["labels"].get(PART_OF) != "plumbline"


def _page(synced: Synced) -> str:
    return "\n".join(
        [
            "<!-- Generated by `make test-cluster` from tests/cluster; do not edit. -->",
            "# From a commit to the champion, by Argo CD",
            "",
            "Real: Argo CD 3.1.9's repo-server, application controller and ApplicationSet controller, a Git server, "
            "and what [the canaries](cluster.md) have of a control plane, with Kubernetes' autoscaler and no metrics "
            "server. Not real: the kubelet, the mesh, and Argo CD's API server: what a Git host's webhook makes it do "
            "is asked of the controller directly. Waits and windows of the analyses are shortened as there. A person "
            "made the namespace `churn-dev` and its Secrets, applied Argo CD's settings and `root.yaml`, and from then "
            "on only committed. `dev` is run like `prod`, whose sync ends with the job that moves the alias.",
            "",
            "| what a person did | what came of it | after |",
            "|---|---|---|",
            *(f"| {did} | {came} | {took:.0f} s |" for did, came, took in synced.told),
            "",
            "| what was shipped | ended | canary's weight | requests it saw | its share of them | guardrails found |",
            "|---|---|---|---|---|---|",
            *map(stories._row, synced.canaries),
            "",
            f"Of {sum(len(callers.asked) for callers in synced.callers):,} requests meanwhile "
            f"{sum(one.status != 200 for callers in synced.callers for one in callers.asked)} failed.",
            "",
        ]
    )
