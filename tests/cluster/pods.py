"""One pod as a process of this machine: its environment, volumes, probes, restarts and end, as a kubelet does them.

No isolation: a container's paths are folders of the pod's own (each argument or variable that begins with a mount's
path is rewritten), its address is one of 127/8, and the image's entrypoint is this environment's `plumb`. Limits, the
security context and liveness probes are taken and not enforced.
"""

from __future__ import annotations

import base64
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlparse

import httpx
from control_plane import NODE
from kube import Kube, Object, Refused

from plumbline import clock, files

BEAT = 0.2
CRASHED = 10.0
"""Seconds before a container's second restart; twice as many before each further one, as Kubernetes waits."""

INITIALIZER = "storage-initializer"
ANY, SCRATCH = "0.0.0.0", "/tmp"  # noqa: S104, S108 (the container's)


def local(address: str) -> str:
    """Where a pod's address is reached on this machine: an endpoint may not be a loopback address, so pods say 10.…"""
    return "127." + address.partition(".")[2]


class Pod(threading.Thread):
    """Runs one pod until it is deleted. `fetch` gives the folder that a model's address names."""

    def __init__(self, kube: Kube, pod: Object, address: str, root: Path, fetch: Callable[[str], Path]) -> None:
        super().__init__(name=f"pod-{pod['metadata']['name']}", daemon=True)
        self.kube, self.address, self._fetch = kube, address, fetch
        self.namespace, self.called = pod["metadata"]["namespace"], pod["metadata"]["name"]
        self.path = f"/api/v1/namespaces/{self.namespace}/pods/{self.called}"
        self.folder = root / self.called
        self.process: subprocess.Popen[bytes] | None = None
        self.restarts = 0
        self._pod = pod
        self._over = threading.Event()
        self._ready = self._up = False
        self._shown: object = None
        self._begun = f"{clock.wall():%Y-%m-%dT%H:%M:%SZ}"

    def seen(self, pod: Object) -> None:
        """What the API server says of the pod now."""
        self._pod = pod

    def end(self) -> None:
        """Ends the process at once, without a word to the API server: the machine is switched off."""
        self._over.set()
        self._kill(signal.SIGKILL)
        self.join(10)
        self._kill(signal.SIGKILL)  # what it may have started meanwhile

    @property
    def labels(self) -> dict[str, str]:
        return dict(self._pod["metadata"].get("labels", {}))

    @property
    def deleted(self) -> bool:
        return "deletionTimestamp" in self._pod["metadata"]

    def run(self) -> None:
        try:
            self._volumes()
            for container in self._pod["spec"].get("initContainers", []):
                self._initialize(container)
            self._live()
            if self.deleted:
                self._terminate()
        except Exception as error:
            if not self._over.is_set():
                self._failed(f"{type(error).__name__}: {error}")

    def _live(self) -> None:
        container = self._container
        restart_at, wait = 0.0, 0.0
        while not self._over.is_set() and not self.deleted:
            self._downward_files()
            now = time.monotonic()
            if self.process is not None and self.process.poll() is not None:
                if self._pod["spec"].get("restartPolicy") == "Never":
                    return self._done(self.process.returncode)
                self._up = self._ready = False
                self.restarts += 1
                restart_at, wait = now + wait, max(CRASHED, 2 * wait)
                code, self.process = self.process.returncode, None
                self._show(f"ended with {code}")
            if self.process is None and now >= restart_at:
                self.process = self._start(container)
                probe_at, misses = now, 0
            if self.process is not None and now >= probe_at:
                startup = None if self._up else container.get("startupProbe")
                probe = startup or container.get("readinessProbe")
                answered = probe is None or self._answers(probe)
                misses = 0 if answered else misses + 1
                if startup is not None:
                    self._up = answered
                    if misses >= probe.get("failureThreshold", 3) * probe.get("periodSeconds", 10):
                        self._kill(signal.SIGKILL)  # as many seconds as it has; it is asked each second
                elif answered or misses >= (probe or {}).get("failureThreshold", 3):
                    self._ready = answered
                settled = self._ready and startup is None
                probe_at = now + (probe.get("periodSeconds", 10) if settled and probe else 1.0)
                self._show(None)
            time.sleep(BEAT)

    def _terminate(self) -> None:
        """What Kubernetes does with a deleted pod: the preStop hook, SIGTERM, SIGKILL when its grace is over."""
        grace = float(self._pod["metadata"].get("deletionGracePeriodSeconds") or 0)
        deadline = time.monotonic() + grace
        hook = self._container.get("lifecycle", {}).get("preStop", {})
        if grace and hook and self.process is not None and self.process.poll() is None:
            if "sleep" not in hook:
                raise ValueError(f"preStop {hook}: this stand-in only sleeps")
            self._over.wait(min(hook["sleep"]["seconds"], grace))
        self._kill(signal.SIGTERM)
        while self.process is not None and self.process.poll() is None and time.monotonic() < deadline:
            time.sleep(BEAT)
        self._kill(signal.SIGKILL)
        if self.process is not None:
            self.process.wait()
        self.kube.delete(self.path, grace=0)
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def _container(self) -> Object:
        containers = self._pod["spec"]["containers"]
        if len(containers) != 1:
            raise ValueError(f"{len(containers)} containers: this stand-in runs one")
        return dict(containers[0])

    def _initialize(self, container: Object) -> None:
        """KServe's storage initializer: [address, folder]. Raises ValueError for another init container."""
        if container["name"] != INITIALIZER:
            raise ValueError(f"init container {container['name']}: this stand-in knows {INITIALIZER} alone")
        source, target = container["args"]
        shutil.copytree(self._fetch(source), self._here(target, container), dirs_exist_ok=True)

    def _start(self, container: Object) -> subprocess.Popen[bytes]:
        given = [*container.get("command", ["plumb"]), *container.get("args", [])]
        if Path(given[0]).name != "plumb":
            raise ValueError(f"command {given[0]!r}: this stand-in runs plumb alone")
        own = self._environment(container)
        words = [re.sub(r"\$\((\w+)\)", lambda found: own.get(found[1], found[0]), word) for word in given[1:]]
        words = [self._here(word, container).replace(ANY, local(self.address)) for word in words]
        environment = {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "TMPDIR": self._here(SCRATCH, container),
            **{name: self._here(value, container) for name, value in own.items()},
        }
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "plumb", *words],
                env=environment,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _environment(self, container: Object) -> dict[str, str]:
        """The container's variables, those that come from config maps, secrets and the pod itself among them."""
        found: dict[str, str] = {}
        for source in container.get("envFrom", []):
            for kind, key in (("configmaps", "configMapRef"), ("secrets", "secretRef")):
                if key in source:
                    found |= self._data(kind, source[key]["name"])
        for variable in container.get("env", []):
            source = variable.get("valueFrom")
            if source is None:
                found[variable["name"]] = variable.get("value", "")
            elif "fieldRef" in source:
                found[variable["name"]] = self._field(source["fieldRef"]["fieldPath"])
            elif "secretKeyRef" in source:
                self._keyed(found, variable["name"], "secrets", source["secretKeyRef"])
            elif "configMapKeyRef" in source:
                self._keyed(found, variable["name"], "configmaps", source["configMapKeyRef"])
            else:
                raise ValueError(f"variable {variable['name']}: {list(source)} is not known to this stand-in")
        return found

    def _keyed(self, found: dict[str, str], name: str, kind: str, reference: Object) -> None:
        data = self._data(kind, reference["name"])
        if reference["key"] in data:
            found[name] = data[reference["key"]]
        elif not reference.get("optional"):
            raise ValueError(f"{kind} {reference['name']} has no key {reference['key']}")

    def _data(self, kind: str, name: str) -> dict[str, str]:
        found = self.kube.get(f"/api/v1/namespaces/{self.namespace}/{kind}/{name}")
        if found is None:
            raise ValueError(f"{kind} {name} is not there")
        data = found.get("data") or {}
        if kind == "secrets":
            return {key: base64.b64decode(value).decode() for key, value in data.items()}
        return dict(data)

    def _field(self, path: str) -> str:
        head, bracket, rest = path.partition("[")
        if bracket:
            return str(self._pod["metadata"].get(head.removeprefix("metadata."), {}).get(rest.strip("'\"]"), ""))
        known = {
            "metadata.name": self.called,
            "metadata.namespace": self.namespace,
            "status.podIP": self.address,
            "spec.nodeName": NODE,
        }
        return known[path]

    def _volumes(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        for volume in self._pod["spec"].get("volumes", []):
            place = self.folder / "volumes" / volume["name"]
            place.mkdir(parents=True, exist_ok=True)
            for kind, key, name in (("configmaps", "configMap", "name"), ("secrets", "secret", "secretName")):
                if key in volume:
                    for file, text in self._data(kind, volume[key][name]).items():
                        files.write_whole(place / file, text)
        self._downward_files()

    def _downward_files(self) -> None:
        """The pod's labels and annotations as files, written again when they changed."""
        for volume in self._pod["spec"].get("volumes", []):
            for item in volume.get("downwardAPI", {}).get("items", []):
                path, wanted = self.folder / "volumes" / volume["name"] / item["path"], ""
                wanted = self._field(item["fieldRef"]["fieldPath"])
                if not path.exists() or path.read_text() != wanted:
                    files.write_whole(path, wanted)

    def _here(self, word: str, container: Object) -> str:
        """A word of the container's, with the path of a mount that it begins with as it is on this machine."""
        mounts = sorted(container.get("volumeMounts", []), key=lambda mount: -len(mount["mountPath"]))
        for mount in mounts:
            inside = mount["mountPath"].rstrip("/")
            if word == inside or word.startswith(f"{inside}/"):
                place = self.folder / "volumes" / mount["name"] / mount.get("subPath", "")
                return str(place / word[len(inside) :].lstrip("/"))
        return word

    def _answers(self, probe: Object) -> bool:
        """Whether an HTTP probe of the kubelet's would be content."""
        where = probe["httpGet"]
        port = where["port"]
        if isinstance(port, str):
            port = next(p["containerPort"] for p in self._container["ports"] if p.get("name") == port)
        try:
            url = f"http://{local(self.address)}:{port}{where['path']}"
            return 200 <= httpx.get(url, timeout=probe.get("timeoutSeconds", 1)).status_code < 400
        except httpx.HTTPError:
            return False

    def _show(self, ended: str | None) -> None:
        """Tells the API server how the pod is, when that has changed."""
        running = self.process is not None
        state: Object = {"running": {"startedAt": self._begun}}
        if not running:
            state = {"waiting": {"reason": "CrashLoopBackOff", "message": ended or "not started"}}
        told = (running, self._ready, self._up, self.restarts)
        if told != self._shown:
            self._status("Running", self._ready, state)
            self._shown = told

    def _done(self, code: int) -> None:
        reason = "Error" if code else "Completed"
        self._status("Failed" if code else "Succeeded", False, {"terminated": {"exitCode": code, "reason": reason}})

    def _failed(self, message: str) -> None:
        self._kill(signal.SIGKILL)
        (self.folder / "why").write_text(message)
        try:
            self._status("Failed", False, {"terminated": {"exitCode": 1, "reason": "Error", "message": message}})
        except (Refused, httpx.HTTPError):
            pass

    def _status(self, phase: str, ready: bool, state: Object) -> None:
        now = f"{clock.wall():%Y-%m-%dT%H:%M:%SZ}"
        true = {"PodScheduled": True, "Initialized": True, "ContainersReady": ready, "Ready": ready}
        status = {
            "phase": phase,
            "podIP": self.address,
            "podIPs": [{"ip": self.address}],
            "startTime": self._begun,
            "conditions": [
                {"type": name, "status": str(value), "lastTransitionTime": now} for name, value in true.items()
            ],
            "containerStatuses": [
                {
                    "name": self._container["name"],
                    "image": self._container["image"],
                    "imageID": "",
                    "ready": ready,
                    "started": self._up,
                    "restartCount": self.restarts,
                    "state": state,
                }
            ],
        }
        try:
            self.kube.patch(f"{self.path}/status", {"status": status}, how="strategic")
        except Refused as refused:
            if refused.code != 404:
                raise

    def _kill(self, number: signal.Signals) -> None:
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, number)


def bucket(folder: Path) -> Callable[[str], Path]:
    """Object storage as a folder: `s3://bucket/key` is `folder/bucket/key`."""

    def fetch(address: str) -> Path:
        parsed = urlparse(address)
        return folder / parsed.netloc / parsed.path.lstrip("/")

    return fetch
