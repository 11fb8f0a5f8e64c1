"""What the manifests promise of every pod and namespace, whoever's: a product's, the pipeline's, the stores'."""

from __future__ import annotations

from typing import Any

import pytest
import typer
import yaml

from plumb.main import app as plumb_app
from plumbline.settings import ROOT, Settings
from products import ALL
from tests.k8s.rendered import ENVIRONMENTS, STREAMING, Object, everything, kind, of, one, rendered, secrets_asked
from toolchain import manifests

OVERLAYS = (*manifests.OVERLAYS, *STREAMING)
each_overlay = pytest.mark.parametrize("path", OVERLAYS)
each_pipeline = pytest.mark.parametrize("environment", ENVIRONMENTS)

RUNNERS = ("Deployment", "StatefulSet", "Job")
SCHEDULER = "airflow-scheduler"
"""The one pod that asks the API server: it makes the tasks' pods."""

OWN_USERS = {"postgres": 999, "postgres-roles": 999}
"""Users that an image of somebody else has."""

TASK = {"app.kubernetes.io/name": "plumbline", "app.kubernetes.io/managed-by": "airflow"}
"""Labels of a pod that Airflow makes (plumbline.orchestration.pods)."""

GIBI, MEBI = 2**30, 2**20


def pipeline(environment: str) -> list[Object]:
    return rendered(f"k8s/pipeline/overlays/{environment}")


def workloads(path: str) -> list[Object]:
    """What makes pods by a template of its own; a predictor's pod is KServe's (test_rendered_manifests.py)."""
    return [made for made in rendered(path) if made["kind"] in RUNNERS]


def pod_of(made: Object) -> Object:
    return dict(made["spec"]["template"]["spec"])


def labels_of(made: Object) -> dict[str, str]:
    return dict(made["spec"]["template"]["metadata"]["labels"])


def wave(made: Object) -> int:
    return int(made["metadata"].get("annotations", {}).get("argocd.argoproj.io/sync-wave", 0))


def environment_of(path: str) -> str:
    return path.partition("+")[0].rpartition("/")[2]


@each_overlay
def test_every_pod_is_locked_down(path: str) -> None:
    assert workloads(path)
    for made in workloads(path):
        name, pod = made["metadata"]["name"], pod_of(made)
        security = pod["securityContext"]
        assert security["runAsNonRoot"] and security["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert security["runAsUser"] == OWN_USERS.get(name, 10_001), name
        assert pod["automountServiceAccountToken"] is False and pod["enableServiceLinks"] is False, name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod), name
        assert not any("hostPath" in volume for volume in pod["volumes"]), name
        for container in (*pod["containers"], *pod.get("initContainers", [])):
            inner = container["securityContext"]
            assert inner["readOnlyRootFilesystem"] and inner["allowPrivilegeEscalation"] is False, name
            assert inner["capabilities"] == {"drop": ["ALL"]}, name
            for bound in ("requests", "limits"):
                assert set(container["resources"][bound]) == {"cpu", "memory"}, name


def test_only_airflow_s_scheduler_has_a_token_and_may_only_run_pods() -> None:
    carry = set()
    for path in manifests.OVERLAYS:
        for made in rendered(path):
            for _, pod in manifests.pod_specs(made):
                sources = [
                    part for volume in pod.get("volumes", []) for part in volume.get("projected", {}).get("sources", [])
                ]
                for source in sources:
                    if token := source.get("serviceAccountToken"):
                        assert token["expirationSeconds"] <= 3600
                        carry.add((path, made["metadata"]["name"]))
    assert carry == {(f"k8s/pipeline/overlays/{environment}", SCHEDULER) for environment in ENVIRONMENTS}
    applied = list(everything())
    assert not kind(applied, "ClusterRole") and not kind(applied, "ClusterRoleBinding")
    for environment in ENVIRONMENTS:
        (binding,), (role,) = kind(pipeline(environment), "RoleBinding"), kind(pipeline(environment), "Role")
        (subject,) = binding["subjects"]
        assert subject["name"] == pod_of(one(pipeline(environment), "Deployment", SCHEDULER))["serviceAccountName"]
        assert subject.get("namespace", f"pipeline-{environment}") == f"pipeline-{environment}"
        assert {what for rule in role["rules"] for what in rule["resources"]} == {"pods", "pods/log", "events"}
    bound = {made["metadata"]["namespace"] for made in applied if made["kind"] == "RoleBinding"}
    assert len(bound) == len(ENVIRONMENTS), "a right that nobody here knows of"


@each_overlay
def test_every_service_account_that_is_named_is_there_and_gives_no_token(path: str) -> None:
    there = {made["metadata"]["name"]: made for made in kind(rendered(path), "ServiceAccount")}
    assert all(made["automountServiceAccountToken"] is False for made in there.values())
    named = {
        pod["serviceAccountName"]
        for made in rendered(path)
        for _, pod in manifests.pod_specs(made)
        if "serviceAccountName" in pod
    }
    tasks = {made["data"].get("PLUMBLINE_PODS_SERVICE_ACCOUNT") for made in kind(rendered(path), "ConfigMap")} - {None}
    assert named | tasks == set(there), "a service account that is not there, or that nobody is"
    nameless = {made["metadata"]["name"] for made in workloads(path) if "serviceAccountName" not in pod_of(made)}
    assert not nameless or path.startswith("k8s/stores/"), f"{nameless} would run as `default`"


@each_overlay
def test_a_namespace_begins_closed(path: str) -> None:
    (namespace,) = kind(rendered(path), "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    assert namespace["metadata"]["labels"]["plumbline.dev/environment"] == environment_of(path)
    policies = kind(rendered(path), "NetworkPolicy")
    assert one(policies, "NetworkPolicy", "default-deny")["spec"] == {
        "podSelector": {},
        "policyTypes": ["Ingress", "Egress"],
    }
    for made in policies:
        for rule in [*made["spec"].get("ingress", []), *made["spec"].get("egress", [])]:
            assert rule["ports"] and (rule.get("from") or rule.get("to")), f"{made['metadata']['name']} is open"
        for rule in made["spec"].get("ingress", []):
            assert not any("ipBlock" in peer for peer in rule["from"]), f"{made['metadata']['name']}: from outside"


def test_no_secret_comes_from_git() -> None:
    by_hand = [yaml.safe_load((ROOT / path).read_text()) for path in manifests.BY_HAND]
    assert not kind([*everything(), *by_hand], "Secret")


@pytest.mark.parametrize("path", [path for path in OVERLAYS if environment_of(path) != "dev"])
def test_each_secret_that_a_cloud_s_overlay_names_comes_from_its_store(path: str) -> None:
    """dev's are made by toolchain.cluster_secrets; its test compares them."""
    objects = rendered(path)
    named = {secret for made in objects for secret, _ in secrets_asked(made)}
    named |= {made["data"].get("PLUMBLINE_PODS_SECRET") for made in kind(objects, "ConfigMap")} - {None}
    stored = kind(objects, "ExternalSecret")
    for made in stored:
        name, spec = made["metadata"]["name"], made["spec"]
        assert spec["target"] == {"name": name} and spec["dataFrom"] == [{"extract": {"key": name}}]
        assert spec["secretStoreRef"] == {"kind": "ClusterSecretStore", "name": "plumbline"}
    assert {made["metadata"]["name"] for made in stored} == named


@each_overlay
def test_what_answers_and_what_keeps_goes_first(path: str) -> None:
    """A day's pods have no priority: they wait, and what serves stays."""
    classes = {made["metadata"]["name"] for made in kind(rendered("k8s/platform"), "PriorityClass")}
    assert classes == {"plumbline-serving", "plumbline-stores"}
    for made in rendered(path):
        if made["kind"] not in (*RUNNERS, "InferenceService"):
            continue
        ((name, pod),) = manifests.pod_specs(made)
        serves = made["kind"] == "InferenceService" or made["metadata"]["name"].endswith("-judge")
        expected = "plumbline-serving" if serves else "plumbline-stores" if made["kind"] == "StatefulSet" else None
        assert pod.get("priorityClassName") == expected, name


@each_pipeline
def test_the_quota_has_room_for_the_day_and_for_two_tasks(environment: str) -> None:
    objects = pipeline(environment)
    (quota,) = kind(objects, "ResourceQuota")
    hard = quota["spec"]["hard"]
    data = {name: value for made in kind(objects, "ConfigMap") for name, value in made["data"].items()}
    tasks = Settings(
        home=ROOT,
        **{  # type: ignore[arg-type]
            name: data[f"PLUMBLINE_{name.upper()}"]
            for name in ("pods_cpu", "pods_cpu_limit", "pods_memory", "pods_memory_limit")
            if f"PLUMBLINE_{name.upper()}" in data
        },
    )
    asked = [container["resources"] for made in objects for container in manifests.containers(made)]
    asked += int(data["AIRFLOW__CORE__PARALLELISM"]) * [
        {
            "requests": {"cpu": tasks.pods_cpu, "memory": tasks.pods_memory},
            "limits": {"memory": tasks.pods_memory_limit},
        }
    ]
    assert len(asked) < int(hard["pods"])
    assert sum(cpu(each["requests"]["cpu"]) for each in asked) < cpu(hard["requests.cpu"])
    for bound in ("requests", "limits"):
        assert sum(memory(each[bound]["memory"]) for each in asked) < memory(hard[f"{bound}.memory"])


def cpu(text: str) -> int:
    """Thousandths of a core."""
    return int(text[:-1]) if text.endswith("m") else 1000 * int(text)


def memory(text: str) -> int:
    """Bytes."""
    return int(text[:-2]) * {"Gi": GIBI, "Mi": MEBI}[text[-2:]]


@pytest.mark.parametrize("path", [path for path in OVERLAYS if path.startswith(("k8s/pipeline", "k8s/stores"))])
def test_every_selector_finds_a_pod_and_every_port_is_one(path: str) -> None:
    """A product's are in test_rendered_manifests.py."""
    objects = rendered(path)
    pods_here = [labels_of(made) for made in workloads(path)] + ([TASK] if "pipeline" in path else [])
    services = kind(objects, "Service")
    for made in services:
        found = [each for each in workloads(path) if made["spec"]["selector"].items() <= labels_of(each).items()]
        assert len(found) == 1, f"Service {made['metadata']['name']} leads to {len(found)} workloads"
        ports = {port["name"] for container in pod_of(found[0])["containers"] for port in container["ports"]}
        assert {port["targetPort"] for port in made["spec"]["ports"]} <= ports
    for made in kind(objects, "NetworkPolicy"):
        assert any(matches(made["spec"]["podSelector"], labels) for labels in pods_here), made["metadata"]["name"]
        for rule in [*made["spec"].get("ingress", []), *made["spec"].get("egress", [])]:
            for peer in (*rule.get("from", []), *rule.get("to", [])):
                if set(peer) == {"podSelector"}:
                    assert any(matches(peer["podSelector"], labels) for labels in pods_here), made["metadata"]["name"]
    for made in kind(objects, "ServiceMonitor"):
        assert any(matches(made["spec"]["selector"], each["metadata"].get("labels", {})) for each in services)
    for made in kind(objects, "StatefulSet"):
        assert made["spec"]["serviceName"] in {each["metadata"]["name"] for each in services}


@pytest.mark.parametrize("path", [path for path in OVERLAYS if environment_of(path) != "dev"])
def test_who_has_a_role_reaches_what_gives_it_and_the_cloud_s_stores(path: str) -> None:
    """EKS Pod Identity answers at its own address, which no other rule lets through."""
    policies = kind(rendered(path), "NetworkPolicy")
    pods_here = {made["metadata"]["name"]: labels_of(made) for made in workloads(path)}
    if "pipeline" not in path:
        pods_here["predictor"] = {"app": f"isvc.{path.split('/')[1]}-predictor"}
    for name, labels in pods_here.items():
        outside = {
            (peer["ipBlock"]["cidr"], port["port"])
            for made in policies
            if matches(made["spec"]["podSelector"], labels)
            for rule in made["spec"].get("egress", [])
            for peer in rule["to"]
            if "ipBlock" in peer
            for port in rule["ports"]
        }
        assert {("169.254.170.23/32", 80), ("0.0.0.0/0", 443)} <= outside, name
        assert ("pipeline" not in path and name != "predictor") or ("0.0.0.0/0", 6379) in outside, name


def matches(selector: Object, labels: dict[str, str]) -> bool:
    """Whether a selector of labels, and of their values among some, takes these."""
    expressions = selector.get("matchExpressions", [])
    assert all(each["operator"] == "In" for each in expressions)
    return selector.get("matchLabels", {}).items() <= labels.items() and all(
        labels.get(each["key"]) in each["values"] for each in expressions
    )


@each_overlay
def test_what_a_pod_needs_comes_before_it(path: str) -> None:
    """Within a wave Argo CD applies what it knows by kind, a ConfigMap before a Deployment; an ExternalSecret last."""
    objects = rendered(path)
    earlier = {
        (made["kind"], made["metadata"]["name"]): wave(made)
        for made in objects
        if made["kind"] in ("ConfigMap", "ServiceAccount", "ExternalSecret", "NetworkPolicy")
    }
    for made in workloads(path):
        about = made["metadata"].get("annotations", {})
        at = 99 if about.get("argocd.argoproj.io/hook") == "PostSync" else wave(made)
        needs = {("ConfigMap", name) for name in config_maps(pod_of(made))}
        if "serviceAccountName" in pod_of(made):
            needs.add(("ServiceAccount", pod_of(made)["serviceAccountName"]))
        stored = {("ExternalSecret", name) for name, _ in secrets_asked(pod_of(made))} & set(earlier)
        policies = {key for key in earlier if key[0] == "NetworkPolicy"}
        late = {need for need in needs | policies if earlier[need] > at} | {
            need for need in stored if earlier[need] >= at
        }
        assert not late, f"{made['kind']} {made['metadata']['name']} comes before {late}"


def config_maps(found: Any) -> set[str]:
    """The ConfigMaps that a pod cannot start without."""
    if isinstance(found, list):
        return {name for part in found for name in config_maps(part)}
    if not isinstance(found, dict):
        return set()
    here = {found[key]["name"] for key in ("configMapRef", "configMapKeyRef", "configMap") if key in found}
    return (here | {name for part in found.values() for name in config_maps(part)}) - {"kube-root-ca.crt"}


@each_pipeline
def test_the_day_and_what_serves_it_share_a_lake(environment: str) -> None:
    data = {name: value for made in kind(pipeline(environment), "ConfigMap") for name, value in made["data"].items()}
    for product in ALL:
        objects = of(product, environment)
        settings = next(made["data"] for made in kind(objects, "ConfigMap") if "PLUMBLINE_LAKE" in made["data"])
        for name in ("PLUMBLINE_LAKE", "PLUMBLINE_NOW"):
            assert settings.get(name) == data.get(name), f"{product.name} has another {name} than the pipeline"
        for container in (found for made in kind(objects, "Job") for found in manifests.containers(made)):
            assert {"name": "PLUMBLINE_STATE", "value": data["PLUMBLINE_STATE"]} in container["env"]
        (service,) = kind(objects, "InferenceService")
        bucket = data["PLUMBLINE_STATE"].removesuffix("state")
        assert service["spec"]["predictor"]["model"]["storageUri"].startswith(f"{bucket}models/")


@each_pipeline
def test_the_pipeline_s_variables_are_settings_and_its_commands_are_there(environment: str) -> None:
    known = {f"PLUMBLINE_{name.upper()}" for name in Settings.model_fields}
    ran = []
    for made in pipeline(environment):
        assert {name for name in made.get("data", {}) if name.startswith("PLUMBLINE_")} <= known
        for container in manifests.containers(made):
            given = {each["name"] for each in container.get("env", [])}
            assert {name for name in given if name.startswith("PLUMBLINE_")} <= known
            if "/pipeline@" in container["image"] and "command" not in container:
                command, arguments = typer.main.get_command(plumb_app), list(container["args"])
                while hasattr(command, "commands"):
                    command = command.commands[arguments.pop(0)]
                command.make_context("plumb", arguments)
                ran.append(container["args"][0])
    assert {"exporter", "spark"} <= set(ran) and ("shop" in ran) == (environment == "dev")
