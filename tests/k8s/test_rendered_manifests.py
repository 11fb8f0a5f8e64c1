"""What Argo CD would apply: invariants over every object of every environment, as kustomize renders it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from plumb.main import app as plumb_app
from plumbline.product import Product
from plumbline.settings import ROOT, Settings
from products.churn import CHURN
from serving.rollout import manifests as laptop
from serving.server import GRACE
from tests.k8s.rendered import (
    Object,
    each_environment,
    each_product,
    everything,
    kind,
    of,
    one,
    pod_labels,
    predictor_of,
)
from toolchain import manifests
from toolchain.manifests import BadManifest


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
    images = {container["image"] for made in everything() for container in manifests.containers(made)}
    tasks = {made["data"].get("PLUMBLINE_PODS_IMAGE") for made in kind(list(everything()), "ConfigMap")} - {None}
    assert len(tasks) == 1 and all(re.search(r"@sha256:[0-9a-f]{64}$", image) for image in images | tasks)
    component = yaml.safe_load((ROOT / "k8s/image-digests/kustomization.yaml").read_text())
    ours = {f"{image['newName']}@{image['digest']}" for image in component["images"]}
    assert images | tasks == ours, "an image without a digest, or a digest without an image"
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
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    path.write_text("\n".join(lines).replace("s3://", "s3://other-"))
    changed = manifests.objects(f"{product.manifests}/overlays/dev", copied)

    def settings(objects: list[Object]) -> str:
        return str(predictor_of(objects)["envFrom"][0]["configMapRef"]["name"])

    assert settings(changed) != settings(of(product, "dev"))
    for objects in (changed, of(product, "dev")):
        data = one(objects, "ConfigMap", settings(objects))["data"]
        assert data.keys() == {line.partition("=")[0] for line in lines} >= {"PLUMBLINE_LAKE"}


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
        assert named == {template["metadata"]["name"] for template in templates} == set(laptop.templates(product))
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
def test_pods_that_speak_mutual_tls_are_scraped_through_their_proxy(product: Product) -> None:
    (monitor,) = kind(of(product), "PodMonitor")
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    made = {rule["targetLabel"]: rule for rule in endpoint["relabelings"]}
    assert made["__address__"]["replacement"] == "$1:15020"
    assert made["revision"]["sourceLabels"] == ["__meta_kubernetes_pod_label_rollouts_pod_template_hash"]
    assert endpoint["port"] in {port["name"] for port in predictor_of(of(product))["ports"]}
    assert one(of(product), "PeerAuthentication", "default")["spec"]["mtls"]["mode"] == "STRICT"


def test_all_of_it_is_what_the_schemas_say_and_the_judges_let_pass() -> None:
    told = manifests.check()
    assert "are what Kubernetes v1.32.13 and v1.34.4 and the CRDs take" in told
    assert "kube-score and checkov find nothing but what .judges.yaml waives" in told


def test_what_a_pod_may_write_is_bounded() -> None:
    for name, spec in (pod for made in everything() for pod in manifests.pod_specs(made)):
        for volume in spec.get("volumes", []):
            assert "emptyDir" not in volume or volume["emptyDir"]["sizeLimit"], f"{name}: {volume['name']}"


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
