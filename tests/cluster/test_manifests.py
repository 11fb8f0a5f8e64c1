"""Every manifest of every environment, applied server-side to a real API server: schemas, CEL rules, policies."""

from __future__ import annotations

import copy

import pytest
import yaml
from control_plane import eventually
from kube import Kube, Object, Refused

from plumbline.product import Product
from plumbline.settings import ROOT
from products import ALL
from toolchain import manifests

pytestmark = pytest.mark.cluster

MODEL = {
    "plumbline.dev/model-version": "3",
    "plumbline.dev/run-id": "0123456789abcdef0123456789abcdef",
    "plumbline.dev/model-digest": f"sha256:{64 * '2'}",
    "plumbline.dev/model-signature": 50 * "H4sI",
}
"""A model file's, in form."""

CHAMPION = {"Job", "ServiceAccount", "NetworkPolicy", "ExternalSecret"}
"""What it takes to move the alias."""


def promoted(made: Object) -> Object:
    made = copy.deepcopy(made)
    if made["kind"] == "InferenceService":
        made["metadata"]["annotations"] |= MODEL
    return made


@pytest.mark.parametrize("path", manifests.OVERLAYS)
def test_an_environment_is_taken_whole(path: str, kube: Kube) -> None:
    objects = manifests.objects(path)
    for made in sorted(objects, key=lambda found: found["kind"] != "Namespace"):
        if made["kind"] == "Namespace":
            kube.apply(made)
            continue
        taken = kube.apply(promoted(made), dryRun="All", manager="argocd-controller")
        assert taken["metadata"]["name"] == made["metadata"]["name"]
    champions = {made["kind"] for made in objects if "-champion" in made["metadata"]["name"]}
    moves = {f"{product.manifests}/overlays/prod" for product in ALL}
    assert champions == (CHAMPION if path in moves else set()), "prod alone moves the alias"


def test_argo_cd_s_objects_are_taken(kube: Kube) -> None:
    kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "argocd"}})
    objects = [
        *manifests.objects("k8s/apps"),
        *(yaml.safe_load((ROOT / path).read_text()) for path in manifests.BY_HAND),
    ]
    for made in objects:
        kube.apply(made, dryRun="All")
    assert {made["kind"] for made in objects} == {"Application", "ApplicationSet", "AppProject", "ConfigMap"}


def test_the_platform_is_taken_and_its_policies_compile(kube: Kube) -> None:
    objects = manifests.objects("k8s/platform")
    for made in objects:
        kube.apply(made, dryRun="All")
    policies = [made for made in objects if made["kind"] == "ValidatingAdmissionPolicy"]
    assert len(policies) == 3
    for policy in policies:
        slip = copy.deepcopy(policy)
        slip["spec"]["validations"][0]["expression"] = "variables.nobody.size() == 0"
        with pytest.raises(Refused, match="undefined field 'nobody'"):
            kube.apply(slip, dryRun="All")


@pytest.mark.parametrize("product", ALL, ids=lambda product: product.name)
def test_the_pod_that_comes_of_it(product: Product, kube: Kube) -> None:
    """KServe's Deployment, run by the Rollout, through every policy: nobody runs the pod, which is there to be seen."""
    namespace, name = f"{product.name}-staging", f"{product.name}-predictor"
    place = f"/api/v1/namespaces/{namespace}"
    objects = manifests.objects(f"{product.manifests}/overlays/staging")
    try:
        for made in sorted(objects, key=lambda found: found["kind"] != "Namespace"):
            if made["kind"] != "Job":
                kube.apply(promoted(made), manager="argocd-controller")

        def pods() -> list[Object]:
            return kube.items(f"{place}/pods", labelSelector=f"app=isvc.{name}")

        (pod,) = eventually(pods, 60, "the Rollout has made a pod")
        labels, about, spec = pod["metadata"]["labels"], pod["metadata"]["annotations"], pod["spec"]
        assert labels["track"] == "stable" and labels["rollouts-pod-template-hash"]
        assert "serving.kserve.io/inferenceservice" in labels, "the mesh's PodMonitor leaves it out by this"
        assert MODEL.items() <= about.items()
        assert not {"argocd.argoproj.io/sync-wave", "argocd.argoproj.io/tracking-id"} & set(about)
        (fetch,), (predictor,) = spec["initContainers"], spec["containers"]
        assert fetch["name"] == "storage-initializer" and "/mnt/models" in fetch["args"]
        for container in (fetch, predictor):
            assert "@sha256:" in container["image"]
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert (
            " ".join(predictor["args"]).removeprefix(product.name).lstrip().startswith("serve --model-dir /mnt/models ")
        )
        assert spec["serviceAccountName"] == name and spec["automountServiceAccountToken"] is False
        deployment = kube.get(f"/apis/apps/v1/namespaces/{namespace}/deployments/{name}")
        assert deployment is not None and deployment["spec"]["replicas"] == 0, "the pods are the Rollout's alone"
    finally:
        kube.delete(place)
