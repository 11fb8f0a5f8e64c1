"""A stand-in kubelet: binds pods to the one node there is, and really runs them as processes of this machine."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import httpx
from control_plane import NODE
from kube import Kube, Object, Refused
from pods import Pod

BEAT = 0.2


class Kubelet(threading.Thread):
    """Follows the pods of all namespaces; `fetch` gives the folder that a model's address names."""

    def __init__(self, kube: Kube, root: Path, fetch: Callable[[str], Path]) -> None:
        super().__init__(name="kubelet", daemon=True)
        self.kube, self.root, self._fetch = kube, root, fetch
        self.pods: dict[str, Pod] = {}
        self._over = threading.Event()
        self._given = 0

    def run(self) -> None:
        while not self._over.wait(BEAT):
            try:
                self._round()
            except (Refused, httpx.HTTPError):
                continue  # the API server is away for a moment; pods run on, as they do

    def of_revision(self, revision: str) -> Pod:
        """The pod of a pod-template hash. Raises StopIteration when there is none."""
        return next(pod for pod in self.pods.values() if pod.labels.get("rollouts-pod-template-hash") == revision)

    def stop(self) -> None:
        """Ends all that runs here."""
        self._over.set()
        self.join(10)
        for pod in self.pods.values():
            pod.end()

    def _round(self) -> None:
        found = {pod["metadata"]["uid"]: pod for pod in self.kube.items("/api/v1/pods")}
        for uid, pod in found.items():
            about = pod["metadata"]
            if uid in self.pods and self.pods[uid].is_alive():
                self.pods[uid].seen(pod)
            elif "deletionTimestamp" in about:
                self.kube.delete(f"/api/v1/namespaces/{about['namespace']}/pods/{about['name']}", grace=0)
            elif uid in self.pods:
                continue  # it has ended and waits to be deleted
            else:
                self._bind(pod)
                self._given += 1
                address = f"10.244.{self._given // 250}.{self._given % 250 + 1}"
                self.pods[uid] = Pod(self.kube, pod, address, self.root, self._fetch)
                self.pods[uid].start()
        for uid in set(self.pods) - set(found):
            if not self.pods[uid].is_alive():
                del self.pods[uid]

    def _bind(self, pod: Object) -> None:
        about = pod["metadata"]
        if not pod["spec"].get("nodeName"):
            target = {"apiVersion": "v1", "kind": "Node", "name": NODE}
            binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": about["name"]}, "target": target}
            self.kube.call(
                "POST", f"/api/v1/namespaces/{about['namespace']}/pods/{about['name']}/binding", json=binding
            )
