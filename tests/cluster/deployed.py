"""The churn model in the cluster: the manifests of overlay dev, rendered, shortened for a test, and applied.

`overlay/` adds the job that moves the alias, which prod alone has.
"""

from __future__ import annotations

import copy
import time
from typing import Any

from control_plane import eventually
from kube import Kube, Object
from world import NOW, Model, verify_key

from plumbline.servers import online_store
from plumbline.settings import settings
from toolchain import manifests

NAMESPACE = "churn-dev"
ARGS = {"interval": "2s", "count": "3", "window": "10s", "min-requests": "10", "latency-slack": "150"}
WARM_UPS = ("24s", "6s", "6s")
"""What an analysis waits for here, where minutes would be hours of testing; the first until outcomes have come back.
Thresholds stay as they are but for latency: p99 of so short a window is its slowest request."""

ENDED = ("Succeeded", "Failed")
DELAY = 5
"""Seconds until pods that have no traffic any more are stopped; 30 in the manifests."""


class Deployed:
    """The product's objects in one API server."""

    def __init__(self, kube: Kube, prometheus: str) -> None:
        self.kube = kube
        found = [self._adapted(wanted, prometheus) for wanted in manifests.objects("tests/cluster/overlay")]
        self.objects = [wanted for wanted in found if wanted["kind"] != "Job"]
        (self.settling,) = (wanted for wanted in found if wanted["kind"] == "Job")

    def install(self, model: Model) -> None:
        """Applies all of it, in the order of Argo CD's sync waves, with a model."""
        self.kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        for wanted in (*self._given(), *self.with_model(model)):
            self.kube.apply(wanted)

    def with_model(self, model: Model) -> list[Object]:
        """All manifests, as Git has them when its model file names this model."""
        found = copy.deepcopy(self.objects)
        for wanted in found:
            if wanted["kind"] == "InferenceService":
                wanted["metadata"]["annotations"] |= model.annotations
                wanted["spec"]["predictor"]["model"]["storageUri"] = model.uri
        return sorted(found, key=_wave)

    def deploy(self, model: Model) -> float:
        """Ships a model: the one file changed, applied. Returns the moment (monotonic)."""
        begun = time.monotonic()
        for wanted in self.with_model(model):
            if wanted["kind"] == "InferenceService":
                self.kube.apply(wanted)
        return begun

    def settle(self, model: Model) -> str:
        """Runs the hook that Argo CD runs when a sync is healthy, the job that moves the alias; how its pod ended."""
        job = copy.deepcopy(self.settling)
        job["metadata"]["name"] = f"churn-champion-{model.version}"
        job["spec"]["template"]["spec"]["containers"][0]["env"][0]["value"] = model.version
        self.kube.apply(job)
        pods = f"/api/v1/namespaces/{NAMESPACE}/pods"

        def ended() -> str | None:
            found = self.kube.items(pods, labelSelector=f"job-name={job['metadata']['name']}")
            return next((pod["status"]["phase"] for pod in found if pod["status"]["phase"] in ENDED), None)

        return str(eventually(ended, 60, "the job that moves the alias"))

    def rollout(self) -> Object:
        """The Rollout as it is now."""
        found = self.kube.get(f"/apis/argoproj.io/v1alpha1/namespaces/{NAMESPACE}/rollouts/churn")
        assert found is not None, "no Rollout churn"
        return found

    def version(self) -> str | None:
        """The model version that KServe's Deployment declares."""
        found = self.kube.get(f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/churn-predictor")
        about = found["spec"]["template"]["metadata"].get("annotations", {}) if found else {}
        return about.get("plumbline.dev/model-version")

    def phase(self) -> str:
        """The Rollout's phase, once its controller has seen the Deployment as it is now; else empty."""
        found = self.rollout()
        status = found.get("status", {})
        deployment = self.kube.get(f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/churn-predictor")
        generations = (
            str(found["metadata"]["generation"]),
            str((deployment or {}).get("metadata", {}).get("generation")),
        )
        seen = (status.get("observedGeneration"), status.get("workloadObservedGeneration"))
        return str(status.get("phase", "")) if generations == seen else ""

    def analyses(self) -> list[Object]:
        """AnalysisRuns, oldest first."""
        found = self.kube.items(f"/apis/argoproj.io/v1alpha1/namespaces/{NAMESPACE}/analysisruns")
        return sorted(found, key=lambda run: (run["metadata"]["creationTimestamp"], run["metadata"]["name"]))

    def _adapted(self, wanted: Object, prometheus: str) -> Object:
        if wanted["kind"] == "ConfigMap" and wanted["metadata"]["name"].startswith("churn-settings"):
            lake = f"file://{settings().lake_uri}"  # an address, and no path in the pod
            wanted["data"] |= {"PLUMBLINE_LAKE": lake, "PLUMBLINE_NOW": NOW.isoformat()}
        if wanted["kind"] == "Job":  # there is no bucket for the pipeline's state, so a lake of its own
            (container,) = wanted["spec"]["template"]["spec"]["containers"]
            (state,) = (each for each in container["env"] if each["name"] == "PLUMBLINE_STATE")
            state |= {"name": "PLUMBLINE_LAKE", "value": "/tmp/lake"}  # noqa: S108 (the container's)
        if wanted["kind"] == "Rollout":
            canary = wanted["spec"]["strategy"]["canary"]
            canary |= {"abortScaleDownDelaySeconds": DELAY, "scaleDownDelaySeconds": DELAY}
            analyses = [copy.deepcopy(step["analysis"]) for step in canary["steps"] if "analysis" in step]
            for analysis, warm_up in zip(analyses, WARM_UPS, strict=True):
                given = {**ARGS, "prometheus": prometheus, "warm-up": warm_up}
                analysis["args"] += [{"name": name, "value": value} for name, value in given.items()]
            canary["steps"] = [
                {"analysis": analyses.pop(0)} if "analysis" in step else step for step in canary["steps"]
            ]
        return wanted

    def _given(self) -> list[Object]:
        """What an environment has before the product comes: its secrets."""
        about = {"namespace": NAMESPACE}
        secrets = {
            "churn-predictor": {"PLUMBLINE_REDIS_URL": online_store.url(), "PLUMBLINE_VERIFY_KEY": verify_key()},
            "churn-champion": {"PLUMBLINE_MLFLOW_URL": settings().mlflow_uri},
            "predictor-object-store": {"AWS_REGION": "nowhere"},  # the lake is a folder
            "judge-object-store": {"AWS_REGION": "nowhere"},
        }
        return [
            {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, **about}, "stringData": data}
            for name, data in secrets.items()
        ]


def _wave(wanted: Object) -> tuple[int, bool]:
    about: dict[str, Any] = wanted["metadata"].get("annotations") or {}
    return int(about.get("argocd.argoproj.io/sync-wave", 0)), wanted["kind"] != "Namespace"
