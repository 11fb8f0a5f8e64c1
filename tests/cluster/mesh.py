"""What a mesh would do: Envoy follows VirtualService and endpoints in the API server; Prometheus finds the pods.

No sidecars and no istiod: one Envoy before all pods, configured by the function that a laptop's canary uses. Every
change of weights that was seen is kept, with its moment.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import httpx
from kube import Kube, Object, Refused
from pods import local

from plumbline import files
from plumbline.servers import services
from plumbline.servers.services import HOST
from plumbline.settings import settings
from serving.rollout import envoy, prometheus

CLUSTERS = ("churn-stable", "churn-canary")
BEAT = 0.1
REVISION = "rollouts-pod-template-hash"


class Weights(NamedTuple):
    """What the VirtualService said from a moment (monotonic seconds) on, in percent."""

    at: float
    canary: int
    stable: int


class Mesh(threading.Thread):
    """Follows one VirtualService. `weights` is what it says now: canary's first.

    `reached` gives the address at which this machine reaches a pod's.
    """

    def __init__(self, kube: Kube, namespace: str, reached: Callable[[str], str] = local) -> None:
        super().__init__(name="mesh", daemon=True)
        self.kube, self.namespace, self._reached = kube, namespace, reached
        self.folder = settings().home / "rollout" / "envoy"
        self.targets = settings().home / "rollout" / "predictors.json"
        self.timeline: list[Weights] = []
        self.port = self.prometheus = 0
        self._over = threading.Event()
        self._written: Any = None

    def start_all(self) -> None:
        """Envoy and Prometheus, then this thread. The VirtualService is there already."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._judge = self.targets.with_name("judge.json")
        for path in (self.targets, self._judge):
            files.write_whole(path, "[]\n")
        self._round()
        proxy = services.ensure(envoy.launch(self.folder, CLUSTERS))
        self.port, self.admin = proxy.port, int(proxy.more["admin"])
        self.start_prometheus()
        self.start()
        self.timeline.append(Weights(time.monotonic(), *self.weights()))
        threading.Thread(target=self._watch, name="weights", daemon=True).start()

    def start_prometheus(self) -> None:
        """Prometheus, on the port that it had."""
        config = prometheus.scrape_config(f"{HOST}:{self.admin}", self.targets)
        config["scrape_configs"].append(
            {"job_name": prometheus.JUDGE, "file_sd_configs": [{"files": [str(self._judge)], "refresh_interval": "1s"}]}
        )
        self.prometheus = services.ensure(replace(prometheus.launch(config), port=self.prometheus or None)).port

    def query(self, text: str) -> list[Any]:
        """The samples of an instant query, each with `metric` and `value`."""
        answer = httpx.get(f"http://{HOST}:{self.prometheus}/api/v1/query", params={"query": text}, timeout=5)
        return list(answer.json()["data"]["result"])

    def weights(self) -> tuple[int, int]:
        """Canary's and stable's weight in the API server now."""
        found = self.kube.get(self._virtual_service_path())
        assert found is not None, "no VirtualService churn-model"
        given = envoy.weights(found)
        return given["churn-canary"], given["churn-stable"]

    def run(self) -> None:
        while not self._over.wait(BEAT):
            try:
                self._round()
            except (Refused, httpx.HTTPError):
                continue

    def since(self, begun: float) -> list[Weights]:
        """Every change of weights from a moment on, and what they were then."""
        before = [seen for seen in self.timeline if seen.at < begun][-1:]
        return before + [seen for seen in self.timeline if seen.at >= begun]

    def _watch(self) -> None:
        """Follows the VirtualService event by event, so that no weights are missed, however short they hold."""
        listed, _, name = self._virtual_service_path().rpartition("/")
        while not self._over.is_set():
            try:
                for found in self.kube.watch(listed, name, self._over):
                    given = envoy.weights(found)
                    now = (given["churn-canary"], given["churn-stable"])
                    if not self.timeline or self.timeline[-1][1:] != now:
                        self.timeline.append(Weights(time.monotonic(), *now))
            except (Refused, httpx.HTTPError):
                continue

    def stop(self) -> None:
        """Ends the thread; Envoy and Prometheus are the home's."""
        self._over.set()
        self.join(10)
        for name in (envoy.NAME, prometheus.NAME):
            services.stop(name, grace=5)

    def _round(self) -> None:
        found = self.kube.get(self._virtual_service_path())
        if found is None:
            return
        of = {cluster: self._ready(cluster) for cluster in CLUSTERS}
        if (found["spec"], of) != self._written:
            envoy.write(self.folder, found, of)
            self._written = (found["spec"], of)
        self._find_targets()

    def _ready(self, service: str) -> list[tuple[str, int]]:
        """The addresses that a Service's EndpointSlices call ready."""
        path = f"/apis/discovery.k8s.io/v1/namespaces/{self.namespace}/endpointslices"
        slices = self.kube.items(path, labelSelector=f"kubernetes.io/service-name={service}")
        return sorted(
            (self._reached(address), port["port"])
            for found in slices
            for port in found.get("ports") or []
            for endpoint in found.get("endpoints") or []
            if endpoint["conditions"].get("ready")
            for address in endpoint["addresses"]
        )

    def _find_targets(self) -> None:
        """Pods that run, as a PodMonitor would find them, with their revision as a label."""
        pods = self.kube.items(f"/api/v1/namespaces/{self.namespace}/pods")
        for path, wanted, port in (
            (self.targets, lambda pod: REVISION in pod["metadata"].get("labels", {}), 8080),
            (self._judge, lambda pod: "judge" in pod["metadata"]["name"], 9103),
        ):
            text = files.dumps([self._scraped(pod, port) for pod in pods if wanted(pod) and _running(pod)])
            if path.read_text() != text:
                files.write_whole(path, text)

    def _scraped(self, pod: Object, port: int) -> dict[str, Any]:
        labels = {"pod": pod["metadata"]["name"], "namespace": pod["metadata"]["namespace"]}
        revision = pod["metadata"].get("labels", {}).get(REVISION)
        return {
            "targets": [f"{self._reached(pod['status']['podIP'])}:{port}"],
            "labels": labels | ({"revision": revision} if revision else {}),
        }

    def _virtual_service_path(self) -> str:
        return f"/apis/networking.istio.io/v1/namespaces/{self.namespace}/virtualservices/churn-model"


def _running(pod: Object) -> bool:
    return pod["status"].get("phase") == "Running" and "podIP" in pod["status"]
