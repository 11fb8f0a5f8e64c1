"""The same DAGs with each task a pod: the pods as Kubernetes would get them, built in Airflow's own environment."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from plumbline.errors import SettingsError
from plumbline.orchestration.pods import OBJECT_STORE
from plumbline.settings import settings
from products.churn import CHURN
from products.images import IMAGES
from tests.plumbline.orchestration import in_airflow

IMAGE = f"registry.internal/plumbline@sha256:{'a1' * 32}"
PODS = {
    "PLUMBLINE_TASKS": "pods",
    "PLUMBLINE_PODS_IMAGE": IMAGE,
    "PLUMBLINE_PODS_NAMESPACE": "churn",
    "PLUMBLINE_PODS_SERVICE_ACCOUNT": "plumbline",
    "PLUMBLINE_PODS_SECRET": "plumbline-servers",
    "PLUMBLINE_PODS_HOME_CLAIM": "plumbline-home",
    "PLUMBLINE_PODS_MEMORY": "2Gi",
}
SECRETS = {
    "PLUMBLINE_SHOP_URL": "postgresql+psycopg://shop:hunter2@db/shop",
    "PLUMBLINE_REDIS_URL": "rediss://:hunter2@cache:6379/0",
    "PLUMBLINE_MLFLOW_URL": "https://app:hunter2@mlflow",
}
PLAIN = {"PLUMBLINE_DBT_UTILS": "hub", "PLUMBLINE_LAKE": "/data/lake", "PLUMBLINE_SPARK_IN_PROCESS": "true"}
SCRIPT = """
import json
from types import SimpleNamespace
from airflow.dag_processing.dagbag import DagBag
from airflow.serialization.serialized_objects import DagSerialization
from kubernetes.client import ApiClient
bag = DagBag()
assert not bag.import_errors, bag.import_errors
pods = {}
for dag in bag.dags.values():
    DagSerialization.to_dict(dag)
    for task in dag.tasks:
        ti = SimpleNamespace(id="0199-abc")
        plugin = SimpleNamespace(lineage_root_parent_id=lambda ti: "airflow/a_dag/0199")
        context = {"ti": ti, "params": {"as_of": "1998-06-30"}, "task": task, "dag": dag, "task_instance": ti,
                   "macros": SimpleNamespace(OpenLineageProviderPlugin=plugin)}
        task.render_template_fields(context)
        pod = ApiClient().sanitize_for_serialization(task.build_pod_request_obj(dry_run=True))
        pods[dag.dag_id + "." + task.task_id] = {
            **pod, "retries": task.retries, "final": task.skip_on_exit_code,
            "xcom": task.do_xcom_push, "finish": str(task.on_finish_action.value),
            "outlets": [o.uri for o in task.outlets], "rule": str(task.trigger_rule.value)}
print("PODS" + json.dumps(pods))
"""


@pytest.fixture(scope="module")
def pods(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PLUMBLINE_HOME", str(tmp_path_factory.mktemp("airflow")))
        patch.setenv("PLUMBLINE_NOW", "1998-07-01T00:00:00Z")
        for name in OBJECT_STORE:
            patch.delenv(name, raising=False)
        for name, value in {**PODS, **SECRETS, **PLAIN}.items():
            patch.setenv(name, value)
        settings.cache_clear()
        lines = in_airflow.said(SCRIPT)
    settings.cache_clear()
    found: dict[str, Any] = json.loads(next(line[4:] for line in lines if line.startswith("PODS")))
    return found


def container(pod: dict[str, Any]) -> dict[str, Any]:
    (found,) = pod["spec"]["containers"]
    return dict(found)


def test_every_task_is_a_pod_that_runs_its_command(pods: dict[str, Any]) -> None:
    training = ("lineage_check", "dataset", "leakage_check", "train", "register", "deploy")
    named = [f"retail_features.{stage}" for stage in CHURN.daily_stages]
    trained = [f"ml_training_pipeline.{name}" for name in training]
    images = [f"images.{stage}" for stage in IMAGES.daily_stages]
    of_release = [f"images.{stage}" for stage in IMAGES.training_stages]
    stages = dict(pods)
    waits = stages.pop("retail_features.stream_reached_midnight")
    assert container(waits)["args"] == ["events", "reached", "--day", "1998-06-30", "--wait", "3600"]
    assert sorted(stages) == sorted([*named, *trained, "outcome_log.compact_log", *images, *of_release])
    for name, pod in stages.items():
        dag, _, task = name.partition(".")
        of_day = name in (*named, *images) and task not in ("materialize", "parity_check")
        words = [*(["images"] if dag == "images" else []), task, *(["--as-of", "1998-06-30"] if of_day else [])]
        assert (container(pod)["command"], container(pod)["args"]) == (["plumb"], words)
        assert container(pod)["image"] == IMAGE
        assert pod["metadata"]["name"] == f"{task.replace('_', '-')}-0199-abc"
        assert pod["metadata"]["namespace"] == "churn"
        assert pod["metadata"]["labels"]["app.kubernetes.io/component"] == task


def test_tries_and_outlets_are_those_of_commands(pods: dict[str, Any]) -> None:
    assert {(pod["retries"], *pod["final"]) for pod in pods.values()} == {(1, 3)}
    assert [name for name, pod in pods.items() if pod["outlets"]] == ["retail_features.parity_check"]
    assert {pod["rule"] for pod in pods.values()} == {"all_success"}


def test_pods_meet_the_restricted_standard(pods: dict[str, Any]) -> None:
    for pod in pods.values():
        spec, inside = pod["spec"], container(pod)
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] > 0
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert inside["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert (spec["serviceAccountName"], spec["automountServiceAccountToken"]) == ("plumbline", False)
        assert not spec.get("hostNetwork") and spec["restartPolicy"] == "Never"
        assert inside["resources"]["requests"] == {"cpu": "500m", "memory": "2Gi"}
        assert inside["resources"]["limits"] == {"cpu": "2", "memory": "4Gi"}
        assert {mount["mountPath"] for mount in inside["volumeMounts"]} == {"/plumbline", "/tmp"}  # noqa: S108
        assert {tuple(set(volume) - {"name"}) for volume in spec["volumes"]} == {
            ("persistentVolumeClaim",),
            ("emptyDir",),
        }
        assert (pod["xcom"], pod["finish"]) == (False, "delete_succeeded_pod")


def test_plain_settings_are_carried_over_and_secrets_are_references(pods: dict[str, Any]) -> None:
    assert "hunter2" not in json.dumps(pods)
    for pod in pods.values():
        variables = {variable["name"]: variable for variable in container(pod)["env"]}
        assert len(variables) == len(container(pod)["env"]), "no variable twice"
        plain = {name: variable["value"] for name, variable in variables.items() if "value" in variable}
        assert plain == {
            "PLUMBLINE_DBT_UTILS": "hub",
            "PLUMBLINE_LAKE": "/data/lake",
            "PLUMBLINE_SPARK_IN_PROCESS": "True",
            "PLUMBLINE_NOW": "1998-07-01T00:00:00+00:00",
            "PLUMBLINE_HOME": "/plumbline",
            "HOME": "/tmp",  # noqa: S108
            "OPENLINEAGE_PARENT_ID": "airflow/a_dag/0199",
        }
        for name in SECRETS:
            key = {"name": "plumbline-servers", "key": name, "optional": False}
            assert variables[name]["valueFrom"] == {"secretKeyRef": key}
        signing = {"name": "plumbline-servers", "key": "PLUMBLINE_SIGNING_KEY", "optional": True}
        assert variables["PLUMBLINE_SIGNING_KEY"]["valueFrom"] == {"secretKeyRef": signing}


IN_A_BUCKET = {
    "PLUMBLINE_STATE": "s3://shop/state",
    "PLUMBLINE_LAKE": "s3://shop/lake",
    "PLUMBLINE_PODS_HOME_CLAIM": "",
    "AWS_ENDPOINT_URL": "https://s3.internal",
    "AWS_REGION": "eu-1",
    "AWS_ACCESS_KEY_ID": "hunter2",
    "AWS_SECRET_ACCESS_KEY": "hunter2",
}


def test_with_state_and_lake_in_an_object_store_pods_share_no_volume(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PLUMBLINE_HOME", str(tmp_path))
        for name, value in {**PODS, **SECRETS, **IN_A_BUCKET}.items():
            patch.setenv(name, value)
        settings.cache_clear()
        lines = in_airflow.said(SCRIPT)
    settings.cache_clear()
    found = json.loads(next(line[4:] for line in lines if line.startswith("PODS")))
    assert found and "hunter2" not in json.dumps(found)
    for pod in found.values():
        assert all(set(volume) == {"name", "emptyDir"} for volume in pod["spec"]["volumes"])
        variables = {variable["name"]: variable for variable in container(pod)["env"]}
        assert len(variables) == len(container(pod)["env"]), "no variable twice"
        for name in ("PLUMBLINE_STATE", "PLUMBLINE_LAKE", "AWS_ENDPOINT_URL", "AWS_REGION"):
            assert variables[name]["value"] == IN_A_BUCKET[name]
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
            key = {"name": "plumbline-servers", "key": name, "optional": True}
            assert variables[name]["valueFrom"] == {"secretKeyRef": key}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"PLUMBLINE_PODS_HOME_CLAIM": ""}, "PLUMBLINE_TASKS=pods needs PLUMBLINE_PODS_HOME_CLAIM too"),
        (
            {"PLUMBLINE_PODS_HOME_CLAIM": "", "PLUMBLINE_STATE": "s3://shop/state", "PLUMBLINE_LAKE": "/data/lake"},
            "needs PLUMBLINE_PODS_HOME_CLAIM too",
        ),
        ({"PLUMBLINE_PODS_IMAGE": "registry.internal/plumbline:latest"}, "PLUMBLINE_PODS_IMAGE: .*sha256"),
        ({"PLUMBLINE_PODS_NAMESPACE": "Churn"}, "PLUMBLINE_PODS_NAMESPACE"),
        ({"PLUMBLINE_PODS_MEMORY": "4 GB"}, "PLUMBLINE_PODS_MEMORY"),
        (
            {"PLUMBLINE_PODS_SECRET": "", "PLUMBLINE_PODS_IMAGE": ""},
            "PLUMBLINE_TASKS=pods needs PLUMBLINE_PODS_IMAGE, P",
        ),
        ({"PLUMBLINE_TASKS": "pod"}, "'commands' or 'pods'"),
    ],
)
def test_settings_of_pods_are_refused_unless_they_are_whole(
    home: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, str], told: str
) -> None:
    for name, value in {**PODS, **SECRETS, **change}.items():
        monkeypatch.setenv(name, value)
    settings.cache_clear()
    with pytest.raises(SettingsError, match=told) as error:
        settings()
    assert "hunter2" not in str(error.value)
