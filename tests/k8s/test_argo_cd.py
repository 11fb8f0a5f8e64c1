"""Argo CD's own objects: what they leave alone, what they let in, in which order, and when all is well."""

from __future__ import annotations

import copy
import json
from typing import Any

import jq
import pytest
import yaml

from plumbline.product import Product
from plumbline.servers import online_store
from plumbline.settings import ROOT
from products import ALL
from products.churn import CHURN
from tests.k8s.rendered import (
    ENVIRONMENTS,
    each_product,
    kind,
    of,
    one,
    rendered,
)
from toolchain import manifests


@each_product
def test_argo_cd_ignores_what_a_rollout_owns_and_nothing_else(product: Product) -> None:
    applications = {made["metadata"]["name"]: made["spec"] for made in manifests.applications("products")}
    assert set(applications) == {f"{product.name}-{environment}" for product in ALL for environment in ENVIRONMENTS}
    for environment in ENVIRONMENTS:
        spec = applications[f"{product.name}-{environment}"]
        assert spec["source"]["path"] == f"{product.manifests}/overlays/{environment}"
        (namespace,) = kind(of(product, environment), "Namespace")
        assert spec["destination"]["namespace"] == namespace["metadata"]["name"] == f"{product.name}-{environment}"
        assert namespace["metadata"]["labels"]["plumbline.dev/environment"] == environment
    template = applications[f"{product.name}-prod"]
    assert {"ServerSideApply=true", "RespectIgnoreDifferences=true"} <= set(template["syncPolicy"]["syncOptions"])
    assert template["syncPolicy"]["automated"]["selfHeal"]
    assert {(each["kind"], each["name"]) for each in template["ignoreDifferences"]} == {
        ("VirtualService", product.host),
        ("Service", f"{product.name}-stable"),
        ("Service", f"{product.name}-canary"),
    }
    for each in template["ignoreDifferences"]:
        live = copy.deepcopy(one(of(product), each["kind"], each["name"]))
        bare = copy.deepcopy(live)
        if each["kind"] == "VirtualService":
            other = {"name": "other", "route": [{"destination": {"host": "x"}, "weight": 100}]}
            for made in (live, bare):
                made["spec"]["http"].append(other)
            for route in bare["spec"]["http"][0]["route"]:
                del route["weight"]
        else:
            live["spec"]["selector"]["rollouts-pod-template-hash"] = "a1"
        for expression in each["jqPathExpressions"]:  # Argo CD deletes what they name from both sides
            live = jq.compile(f"del({expression})").input_value(live).first()
        assert live == bare


@pytest.mark.usefixtures("home")
@pytest.mark.servers
def test_argo_cd_s_own_health_is_of_our_kind_and_waits_for_ready_alone() -> None:
    """Its Lua is run by Redis', which is 5.1 as Argo CD's."""
    (path,) = [path for path in manifests.BY_HAND if path.endswith("argocd-cm.yaml")]
    data = yaml.safe_load((ROOT / path).read_text())["data"]
    (made,) = kind(of(CHURN), "InferenceService")
    (key,) = [name for name in data if name.startswith("resource.customizations.health.")]
    assert key == f"resource.customizations.health.{made['apiVersion'].partition('/')[0]}_{made['kind']}"
    script = f"local function health(obj) local hs; {data[key]} end return health(cjson.decode(ARGV[1])).status"

    def health(**status: Any) -> str:
        return online_store.client().eval(script, 0, json.dumps({**made, **status})).decode()

    stopped = {"type": "Stopped", "status": "False"}
    assert health() == health(status={}) == health(status={"conditions": [stopped]}) == "Progressing"
    assert health(status={"conditions": [stopped, {"type": "Ready", "status": "Unknown"}]}) == "Progressing"
    assert health(status={"conditions": [stopped, {"type": "Ready", "status": "True"}]}) == "Healthy"


def test_the_project_lets_in_what_is_applied() -> None:
    (project,) = kind(rendered("k8s/apps"), "AppProject")
    allowed = {each["kind"] for each in project["spec"]["clusterResourceWhitelist"]}
    applied = [made for path in manifests.APPLIED[1:] for made in rendered(path)]
    cluster_wide = {made["kind"] for made in applied if "namespace" not in made["metadata"]}
    assert cluster_wide == allowed
    refused = {each["kind"] for each in project["spec"]["namespaceResourceBlacklist"]}
    assert refused.isdisjoint(made["kind"] for made in applied), "a Secret in Git"
    namespaces = {each["namespace"] for each in project["spec"]["destinations"]}
    assert "argocd" not in namespaces, "an overlay could lift itself out of the project"
    for made in applied:
        wanted = made["metadata"].get("namespace", "monitoring")
        assert wanted in namespaces or f"{wanted.partition('-')[0]}-*" in namespaces


@each_product
def test_waves_go_from_what_is_needed_to_what_needs_it(product: Product) -> None:
    waves: dict[str, int] = {}
    for made in of(product):
        about = made["metadata"].get("annotations", {})
        if "argocd.argoproj.io/hook" in about:
            assert made["kind"] == "Job" and about["argocd.argoproj.io/hook"] == "PostSync"
        else:
            waves[made["kind"]] = int(about.get("argocd.argoproj.io/sync-wave", 0))
    order = ["Namespace", "NetworkPolicy", "ServingRuntime", "InferenceService", "Rollout"]
    assert [waves[name] for name in order] == sorted({waves[name] for name in order})
    judged_by = ("VirtualService", "AnalysisTemplate", "PodMonitor", "ServiceMonitor", "Deployment")
    assert all(waves[name] < waves["Rollout"] for name in judged_by)
    assert max(waves.values()) == waves["Rollout"], "nothing waits for the end of a canary but the hook"
