"""An Airflow task as a pod: the same `plumb` command in an image that is named by its digest.

The pod meets Kubernetes' restricted security standard. Its root is read-only, /tmp is its own. With a claim, home is a
volume that all tasks share; without one (state and lake are in an object store) home is the pod's own, and goes with
it. Plain settings are carried over as they are here. Where the shop, Redis and MLflow are comes from a Secret, which
must have all three: a pod has no private servers. The object store's address is carried over, its keys are in that
Secret.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from plumbline.product import PARENT
from plumbline.settings import PREFIX, Settings, settings

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator

HOME, TMP = "/plumbline", "/tmp"  # noqa: S108 (the pod's own)
USER = 10_001
SECRET = ("PLUMBLINE_SHOP_URL", "PLUMBLINE_REDIS_URL", "PLUMBLINE_MLFLOW_URL")
"""Keys that the Secret must have, each an environment variable of its name."""

OPTIONAL_SECRET = (
    "SPARK_REMOTE",
    "PLUMBLINE_SIGNING_KEY",
    "PLUMBLINE_VERIFY_KEY",
    "PLUMBLINE_KAFKA_URL",
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD",
    "OPENLINEAGE_URL",
    "OPENLINEAGE_API_KEY",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
)
"""Keys that it may have."""

OBJECT_STORE = ("AWS_ENDPOINT_URL", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ALLOW_HTTP")
"""Variables that say where the object store is and how to speak to it; none is a secret."""

HERE = ("home", "cache", "plumb", "tasks", "retry_seconds")
"""Settings of the machine that Airflow runs on."""


def pod_task(command: str, task_id: str, **operator: Any) -> BaseOperator:
    """The operator whose pod runs `plumb <command>`; `operator` goes to it as it is."""
    from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
    from kubernetes.client import models as k8s

    from plumbline.orchestration.operators import DAG_RUN, ending_at_gates

    wanted = settings()
    return ending_at_gates(KubernetesPodOperator)(
        task_id=task_id,
        # Airflow gives each try an id of its own: a second try never meets the first one's pod.
        name=f"{task_id.replace('_', '-')}-{{{{ ti.id }}}}",
        random_name_suffix=False,
        namespace=wanted.pods_namespace,
        image=wanted.pods_image,
        image_pull_policy="IfNotPresent",
        cmds=["plumb"],
        arguments=words(command),
        env_vars=[
            *(k8s.V1EnvVar(name=name, value=value) for name, value in environment(wanted).items()),
            k8s.V1EnvVar(name=PARENT, value=DAG_RUN),
            *(_from_secret(name, wanted.pods_secret, optional=False) for name in SECRET),
            *(_from_secret(name, wanted.pods_secret, optional=True) for name in OPTIONAL_SECRET),
        ],
        labels={
            "app.kubernetes.io/name": "plumbline",
            "app.kubernetes.io/component": task_id,
            "app.kubernetes.io/managed-by": "airflow",
        },
        container_resources=k8s.V1ResourceRequirements(
            requests={"cpu": wanted.pods_cpu, "memory": wanted.pods_memory},
            limits={"cpu": wanted.pods_cpu_limit, "memory": wanted.pods_memory_limit},
        ),
        service_account_name=wanted.pods_service_account,
        automount_service_account_token=False,
        security_context=k8s.V1PodSecurityContext(
            run_as_non_root=True,
            run_as_user=USER,
            run_as_group=USER,
            fs_group=USER,
            seccomp_profile=k8s.V1SeccompProfile(type="RuntimeDefault"),
        ),
        container_security_context=k8s.V1SecurityContext(
            allow_privilege_escalation=False,
            read_only_root_filesystem=True,
            capabilities=k8s.V1Capabilities(drop=["ALL"]),
        ),
        volumes=[
            _home(wanted.pods_home_claim),
            k8s.V1Volume(name="tmp", empty_dir=k8s.V1EmptyDirVolumeSource(size_limit="4Gi")),
        ],
        volume_mounts=[k8s.V1VolumeMount(name="home", mount_path=HOME), k8s.V1VolumeMount(name="tmp", mount_path=TMP)],
        do_xcom_push=False,
        on_finish_action="delete_succeeded_pod",  # a failed one stays to be looked at
        startup_timeout_seconds=600,
        termination_grace_period=60,
        **operator,
    )


def environment(wanted: Settings) -> dict[str, str]:
    """The plain settings that a pod gets: those that are set here and not the machine's, and where the object store is;
    never a secret."""
    carried = {
        f"{PREFIX}{name.upper()}": value.isoformat() if hasattr(value, "isoformat") else str(value)
        for name in sorted(wanted.model_fields_set)
        if name not in HERE and not name.startswith("pods_")
        if (value := getattr(wanted, name)) is not None and not isinstance(value, SecretStr)
    }
    carried = {name: value for name, value in carried.items() if name not in SECRET}
    store = {name: os.environ[name] for name in OBJECT_STORE if os.environ.get(name)}
    return {**carried, **store, "PLUMBLINE_HOME": HOME, "HOME": TMP}


def words(command: str) -> list[str]:
    """A command's words; a template is part of its word, with the blanks in it."""
    return re.findall(r"(?:\{\{.*?\}\}|\S)+", command)


def _home(claim: str | None) -> Any:
    from kubernetes.client import models as k8s

    if claim is None:
        return k8s.V1Volume(name="home", empty_dir=k8s.V1EmptyDirVolumeSource(size_limit="4Gi"))
    source = k8s.V1PersistentVolumeClaimVolumeSource(claim_name=claim)
    return k8s.V1Volume(name="home", persistent_volume_claim=source)


def _from_secret(name: str, secret: str | None, *, optional: bool) -> Any:
    from kubernetes.client import models as k8s

    key = k8s.V1SecretKeySelector(name=secret, key=name, optional=optional)
    return k8s.V1EnvVar(name=name, value_from=k8s.V1EnvVarSource(secret_key_ref=key))
