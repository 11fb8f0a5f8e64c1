"""What Argo CD would apply: invariants over every object of every environment, as kustomize renders it."""

from __future__ import annotations

import copy
import json
import re
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jq
import pytest
import typer
import yaml

from plumb.main import app as plumb_app
from plumbline.product import Product
from plumbline.servers import online_store
from plumbline.settings import ROOT, Settings
from products import ALL
from products.churn import CHURN
from serving.server import GRACE
from toolchain import manifests
from toolchain.manifests import BadManifest

ENVIRONMENTS = ("dev", "staging", "prod")
each_environment = pytest.mark.parametrize(
    ("product", "environment"),
    [(product, environment) for product in ALL for environment in ENVIRONMENTS],
    ids=lambda given: getattr(given, "name", given),
)
each_product = pytest.mark.parametrize("product", ALL, ids=lambda product: product.name)

Object = dict[str, Any]


@cache
def rendered(path: str) -> list[Object]:
    return manifests.objects(path)


def of(product: Product, environment: str = "prod") -> list[Object]:
    return rendered(f"{product.manifests}/overlays/{environment}")


def kind(objects: list[Object], name: str) -> list[Object]:
    return [made for made in objects if made["kind"] == name]


def one(objects: list[Object], what: str, name: str) -> Object:
    (found,) = [made for made in kind(objects, what) if made["metadata"]["name"] == name]
    return found


def everything() -> Iterator[Object]:
    for path in manifests.APPLIED:
        yield from rendered(path)


def pod_labels(product: Product, environment: str) -> dict[str, dict[str, str]]:
    """The labels of the pods that an environment runs; KServe and Argo Rollouts add theirs to a predictor's."""
    objects, name = of(product, environment), f"{product.name}-predictor"
    theirs = {"app": f"isvc.{name}", "track": "stable", "rollouts-pod-template-hash": "a1"}
    made = {
        found["metadata"]["name"]: found["spec"]["template"]["metadata"]["labels"]
        for found in [*kind(objects, "Deployment"), *kind(objects, "Job")]
    }
    return {**made, "predictor": {**one(objects, "ServingRuntime", name)["spec"]["labels"], **theirs}}


def predictor_of(objects: list[Object]) -> Object:
    """The predictor's container."""
    (runtime,) = kind(objects, "ServingRuntime")
    (container,) = runtime["spec"]["containers"]
    return dict(container)


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A copy of the manifests to change."""
    shutil.copytree(ROOT / "k8s", tmp_path / "k8s")
    return tmp_path


@each_environment
def test_pods_are_restricted(product: Product, environment: str) -> None:
    runtime = one(of(product, environment), "ServingRuntime", f"{product.name}-predictor")["spec"]
    service = one(of(product, environment), "InferenceService", product.name)["spec"]["predictor"]
    pods = {
        "predictor": {**service, **{key: runtime[key] for key in ("containers", "volumes")}},
        **{
            made["metadata"]["name"]: made["spec"]["template"]["spec"]
            for made in [*kind(of(product, environment), "Deployment"), *kind(of(product, environment), "Job")]
        },
    }
    assert len(pods) == (3 if environment == "prod" else 2)
    for name, pod in pods.items():
        security = pod["securityContext"]
        assert security["runAsNonRoot"] and security["runAsUser"] >= 10_000, name
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert pod["automountServiceAccountToken"] is False and pod["serviceAccountName"] != "default", name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod), name
        assert all(set(volume) & {"emptyDir", "downwardAPI", "configMap"} for volume in pod["volumes"]), name
        for container in pod["containers"]:
            inner = container["securityContext"]
            assert inner["readOnlyRootFilesystem"] and inner["allowPrivilegeEscalation"] is False, name
            assert inner["capabilities"] == {"drop": ["ALL"]}, name
            for bound in ("requests", "limits"):
                assert set(container["resources"][bound]) == {"cpu", "memory"}, name
            mounted = {mount["name"] for mount in container["volumeMounts"]}
            assert mounted == {volume["name"] for volume in pod["volumes"]}, name
            if "-champion-" not in name:
                assert {"startupProbe", "livenessProbe", "readinessProbe"} <= set(container), name
    (predictor,) = runtime["containers"]
    stays = predictor["lifecycle"]["preStop"]["sleep"]["seconds"]
    proxy = yaml.safe_load(runtime["annotations"]["proxy.istio.io/config"])
    assert stays + GRACE < int(proxy["terminationDrainDuration"].rstrip("s")) < service["terminationGracePeriodSeconds"]


def test_images_are_named_by_digest_and_in_one_place_only() -> None:
    images = [container["image"] for made in everything() for container in manifests.containers(made)]
    assert len(images) == 15 and all(re.search(r"@sha256:[0-9a-f]{64}$", image) for image in images)
    component = yaml.safe_load((ROOT / "k8s/image-digests/kustomization.yaml").read_text())
    ours = {f"{image['newName']}@{image['digest']}" for image in component["images"]}
    assert set(images) == ours
    named = {image["name"] for image in component["images"]}
    for path in (ROOT / "k8s").rglob("*.yaml"):
        if "generated" not in path.parts:
            used = re.findall(r"^\s*(?:- )?image: (\S+)", path.read_text(), re.MULTILINE)
            assert set(used) <= named, f"{path} names an image that k8s/image-digests does not"


@each_environment
def test_a_promotion_changes_nothing_but_the_model(product: Product, environment: str, copied: Path) -> None:
    path = copied / product.manifests / "overlays" / environment / "model.yaml"
    found = yaml.safe_load(path.read_text())
    for name in found["metadata"]["annotations"]:
        found["metadata"]["annotations"][name] = "12"
    found["spec"]["predictor"]["model"]["storageUri"] = "s3://elsewhere"
    path.write_text(yaml.safe_dump(found))
    promoted = manifests.objects(f"{product.manifests}/overlays/{environment}", copied)

    before, after = (
        of(product, environment),
        [made for made in promoted if made["kind"] not in ("InferenceService", "Job")],
    )
    assert after == [made for made in before if made["kind"] not in ("InferenceService", "Job")]
    (was,), (now,) = kind(before, "InferenceService"), kind(promoted, "InferenceService")
    assert now["spec"]["predictor"]["model"].pop("storageUri") == "s3://elsewhere"
    said = {name: now["metadata"]["annotations"].pop(name) for name in list(found["metadata"]["annotations"])}
    assert set(said.values()) == {"12"} and len(said) == 4
    expected = {**was["metadata"], "annotations": dict(was["metadata"]["annotations"])}
    for name in said:
        del expected["annotations"][name]
    assert now["metadata"] == expected
    assert now["spec"]["predictor"]["model"].items() <= was["spec"]["predictor"]["model"].items()
    if environment != "prod":
        assert not kind(promoted, "Job"), "one registry, one environment that moves its alias"
        return
    (job,) = kind(promoted, "Job")
    assert job["metadata"]["name"] == f"{product.name}-champion-12", (
        "a version's job is its own: a job cannot be changed"
    )
    (settle,) = job["spec"]["template"]["spec"]["containers"]
    assert {"name": "MODEL_VERSION", "value": "12"} in settle["env"]
    assert settle["args"] == ["rollout", "settle", "--product", product.name, "--version", "$(MODEL_VERSION)"]


@each_product
def test_changed_settings_are_rolled_out_as_a_model_is(product: Product, copied: Path) -> None:
    path = copied / product.manifests / "overlays/dev/settings.env"
    path.write_text(path.read_text().replace("s3://", "s3://other-"))
    changed = manifests.objects(f"{product.manifests}/overlays/dev", copied)

    def settings(objects: list[Object]) -> str:
        return str(predictor_of(objects)["envFrom"][0]["configMapRef"]["name"])

    assert settings(changed) != settings(of(product, "dev"))
    for objects in (changed, of(product, "dev")):
        assert one(objects, "ConfigMap", settings(objects))["data"].keys() == {"PLUMBLINE_LAKE"}


@each_environment
def test_variables_are_settings(product: Product, environment: str) -> None:
    """A pod with a variable that the settings do not know would not start."""
    known = {f"PLUMBLINE_{name.upper()}" for name in Settings.model_fields}
    given = {
        variable["name"]
        for made in of(product, environment)
        for container in manifests.containers(made)
        for variable in container["env"]
    }
    given |= {name for made in kind(of(product, environment), "ConfigMap") for name in made["data"]}
    assert {name for name in given if name.startswith("PLUMBLINE_")} <= known
    assert {"PLUMBLINE_MODEL_VERSION", "PLUMBLINE_MODEL_SIGNATURE", "PLUMBLINE_REVISION"} <= given


@each_product
def test_pods_run_commands_that_there_are(product: Product) -> None:
    """Each container's arguments are parsed by the command that they name; nothing is run."""
    ran = []
    for container in (container for made in of(product) for container in manifests.containers(made)):
        command: Any = typer.main.get_command(plumb_app)
        arguments, names = list(container["args"]), []
        while hasattr(command, "commands"):
            names.append(arguments.pop(0))
            command = command.commands[names[-1]]
        command.make_context(" ".join(names), arguments)
        ran.append(" ".join(names))
    serve = "serve" if product is CHURN else f"{product.command} serve"
    assert sorted(ran) == sorted([serve, "judge", "rollout settle"])


@each_environment
def test_every_selector_finds_a_pod(product: Product, environment: str) -> None:
    pods = list(pod_labels(product, environment).values())
    selectors = {
        f"{made['kind']} {made['metadata']['name']}": selector
        for made in of(product, environment)
        if (selector := _selector(made))
    }
    assert len(selectors) == (13 if environment == "prod" else 12)
    for name, selector in selectors.items():
        assert any(selector.items() <= labels.items() for labels in pods), f"{name} selects nothing: {selector}"


def _selector(made: Object) -> dict[str, str]:
    spec = made.get("spec", {})
    found = spec.get("selector") or spec.get("podSelector") or {}
    if made["kind"] == "ServiceMonitor":  # it selects Services by label, which ours share with their pods
        return dict(found["matchLabels"])
    return dict(found.get("matchLabels", found))


@each_environment
def test_nothing_is_open_but_what_is_listed(product: Product, environment: str) -> None:
    policies = kind(of(product, environment), "NetworkPolicy")
    assert one(policies, "NetworkPolicy", "default-deny")["spec"] == {
        "podSelector": {},
        "policyTypes": ["Ingress", "Egress"],
    }
    for name, labels in pod_labels(product, environment).items():
        own = [made for made in policies if (found := _selector(made)) and found.items() <= labels.items()]
        assert len(own) == 1, f"{name} has no policy of its own"
    for made in policies:
        for rule in [*made["spec"].get("ingress", []), *made["spec"].get("egress", [])]:
            assert rule["ports"] and (rule.get("from") or rule.get("to")), f"{made['metadata']['name']} is open"
    ports = {port["port"] for made in policies for rule in made["spec"].get("ingress", []) for port in rule["ports"]}
    assert ports == {8080, 15020, 9103}


@each_environment
def test_the_rollout_alone_runs_the_pods(product: Product, environment: str) -> None:
    service = one(of(product, environment), "InferenceService", product.name)
    assert service["spec"]["predictor"]["minReplicas"] == 0
    assert "batcher" not in service["spec"]["predictor"], "callers who share a batch would refuse each other"
    assert service["metadata"]["annotations"]["serving.kserve.io/autoscalerClass"] == "none"
    rollout = one(of(product, environment), "Rollout", product.name)["spec"]
    assert rollout["workloadRef"]["scaleDown"] == "never" and rollout["selector"]["matchLabels"]
    assert "replicas" not in rollout, "the autoscaler's"
    assert one(of(product, environment), "HorizontalPodAutoscaler", product.name)["spec"]["scaleTargetRef"] == {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Rollout",
        "name": product.name,
    }
    canary = rollout["strategy"]["canary"]
    assert [step["setWeight"] for step in canary["steps"] if "setWeight" in step] == [10, 25, 50]
    for ramp, analysis in zip(canary["steps"][::2], canary["steps"][1::2], strict=True):
        assert "setWeight" in ramp and "analysis" in analysis, "no weight that is not earned"
    templates = kind(of(product, environment), "AnalysisTemplate")
    args = [arg for template in templates for arg in template["spec"]["args"]]
    defaults = {arg["name"]: arg["value"] for arg in args if "value" in arg}
    assert all(arg.get("value") in (None, defaults.get(arg["name"])) for arg in args), "Argo refuses two defaults"
    for step in canary["steps"][1::2]:
        given = {arg["name"]: arg.get("value") for arg in step["analysis"]["args"]}
        assert {arg["name"] for arg in args} - set(defaults) == set(given), "what has no default is given"
        assert {given[f"{side}-service"] for side in ("canary", "stable")} == {
            f"{product.name}-{side}" for side in ("canary", "stable")
        }
        named = {each["templateName"] for each in step["analysis"]["templates"]}
        assert named == {template["metadata"]["name"] for template in templates}
    (route,) = one(of(product, environment), "VirtualService", product.host)["spec"]["http"]
    assert {step["destination"]["host"]: step["weight"] for step in route["route"]} == {
        canary["stableService"]: 100,
        canary["canaryService"]: 0,
    }
    assert canary["trafficRouting"]["istio"]["virtualService"] == {"name": product.host, "routes": [route["name"]]}


@each_product
def test_the_judge_reads_the_very_template(product: Product) -> None:
    text = (ROOT / product.manifests / "base/kpis.yaml").read_text()
    judge = one(of(product), "Deployment", f"{product.name}-judge")["spec"]["template"]["spec"]
    assert judge["containers"][0]["args"][:5] == [
        "judge",
        "--product",
        product.name,
        "--template",
        "/etc/guardrails/kpis.yaml",
    ]
    (mounted,) = [volume["configMap"]["name"] for volume in judge["volumes"] if "configMap" in volume]
    assert one(of(product), "ConfigMap", mounted)["data"] == {"kpis.yaml": text}


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


@each_product
def test_pods_that_speak_mutual_tls_are_scraped_through_their_proxy(product: Product) -> None:
    (monitor,) = kind(of(product), "PodMonitor")
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    made = {rule["targetLabel"]: rule for rule in endpoint["relabelings"]}
    assert made["__address__"]["replacement"] == "$1:15020"
    assert made["revision"]["sourceLabels"] == ["__meta_kubernetes_pod_label_rollouts_pod_template_hash"]
    assert endpoint["port"] in {port["name"] for port in predictor_of(of(product))["ports"]}
    assert one(of(product), "PeerAuthentication", "default")["spec"]["mtls"]["mode"] == "STRICT"


def test_all_of_it_is_what_the_schemas_say() -> None:
    assert "are what Kubernetes v1.32.13 and v1.34.4 and the CRDs take" in manifests.check()


@pytest.mark.parametrize(
    ("what", "path", "value", "told"),
    [
        ("Rollout", ("spec", "strategy", "canary", "stableServce"), "x", "stableServce"),
        ("InferenceService", ("spec", "predictor", "minReplicas"), "none", "minReplicas"),
        ("VirtualService", ("spec", "http", 0, "route", 0, "wieght"), 1, "wieght"),
        ("NetworkPolicy", ("spec", "podSelectr"), {}, "podSelectr"),
        ("HorizontalPodAutoscaler", ("spec", "maxReplicas"), "six", "maxReplicas"),
        ("Deployment", ("spec", "template", "spec", "containers", 0, "readOnly"), True, "readOnly"),
        ("PodMonitor", ("spec", "podMetricsEndpoints", 0, "intervall"), "1s", "intervall"),
        ("AnalysisTemplate", ("spec", "metrics", 0, "failureLimits"), 1, "failureLimits"),
    ],
)
@pytest.mark.parametrize("version", ["v1.32.13", "v1.34.4"])
def test_a_slip_in_any_kind_is_found(what: str, path: tuple[Any, ...], value: Any, told: str, version: str) -> None:
    made = yaml.safe_load(yaml.safe_dump(kind(of(CHURN, "dev"), what)[0]))
    inner = made
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    with pytest.raises(BadManifest, match=told):
        manifests.conforms(yaml.safe_dump(made), version)
