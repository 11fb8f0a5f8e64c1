"""A small client of a Kubernetes API server: paths by discovery, server-side apply, patches; what it refuses, said."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

Object = dict[str, Any]
PATCHES = {
    "merge": "application/merge-patch+json",
    "json": "application/json-patch+json",
    "strategic": "application/strategic-merge-patch+json",
}


class Refused(Exception):
    """The API server said no; the text is what a person would read. `code` is HTTP's."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Kube:
    """Safe to use from several threads."""

    def __init__(self, url: str, token: str, authority: Path) -> None:
        self.url, self.token, self.authority = url, token, authority
        limits = httpx.Limits(max_connections=40, max_keepalive_connections=20)
        self._client = httpx.Client(
            base_url=url,
            headers={"Authorization": f"Bearer {token}"},
            verify=ssl.create_default_context(cafile=str(authority)),
            timeout=20,
            limits=limits,
        )
        self._plurals: dict[str, dict[str, tuple[str, bool]]] = {}
        self._lock = threading.Lock()

    def get(self, path: str) -> Object | None:
        """An object by its path, None when there is none."""
        try:
            return self.call("GET", path)
        except Refused as refused:
            if refused.code == 404:
                return None
            raise

    def items(self, path: str, **query: str) -> list[Object]:
        """The objects of a list."""
        return list(self.call("GET", path, params=query)["items"])

    def watch(self, path: str, name: str, over: threading.Event) -> Iterator[Object]:
        """An object of a list at each change of it, until `over` is set or the server ends the watch."""
        query = {"watch": "true", "fieldSelector": f"metadata.name={name}", "timeoutSeconds": "600"}
        with self._client.stream("GET", path, params=query, timeout=httpx.Timeout(20, read=None)) as answer:
            for line in answer.iter_lines():
                if over.is_set():
                    return
                event = json.loads(line)
                if event["type"] in ("ADDED", "MODIFIED"):
                    yield event["object"]

    def patch(self, path: str, body: Any, how: str = "merge", **query: str) -> Object:
        """Changes a part of an object; `how` is one of PATCHES."""
        headers = {"Content-Type": PATCHES[how]}
        return self.call("PATCH", path, content=json.dumps(body), headers=headers, params=query)

    def apply(self, wanted: Object, manager: str = "plumbline", **query: str) -> Object:
        """Server-side apply with unknown fields refused, as `kubectl apply --server-side --validate=strict` does."""
        given = {"fieldManager": manager, "force": "true", "fieldValidation": "Strict", **query}
        headers = {"Content-Type": "application/apply-patch+yaml"}
        return self.call("PATCH", self.path(wanted), content=json.dumps(wanted), headers=headers, params=given)

    def create(self, wanted: Object) -> Object:
        """A new object. Raises Refused when it is there."""
        return self.call("POST", self.path(wanted).rpartition("/")[0], json=wanted)

    def delete(self, path: str, grace: int | None = None) -> None:
        """Deletes an object; one that is gone is no error."""
        body = {"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": grace}
        try:
            self.call("DELETE", path, json={name: value for name, value in body.items() if value is not None})
        except Refused as refused:
            if refused.code != 404:
                raise

    def path(self, wanted: Object) -> str:
        """Where an object lies, by its apiVersion, kind, namespace and name."""
        version, kind, about = wanted["apiVersion"], wanted["kind"], wanted["metadata"]
        plural, namespaced = self._plural(version, kind)
        place = f"/namespaces/{about.get('namespace', 'default')}" if namespaced else ""
        return f"{_root(version)}{place}/{plural}/{about['name']}"

    def _plural(self, version: str, kind: str) -> tuple[str, bool]:
        with self._lock:
            if kind not in self._plurals.get(version, {}):
                found = self.call("GET", _root(version))["resources"]
                self._plurals[version] = {
                    r["kind"]: (r["name"], r["namespaced"]) for r in found if "/" not in r["name"]
                }
        if kind not in self._plurals[version]:
            raise Refused(404, f"the API server knows no {kind} in {version}")
        return self._plurals[version][kind]

    def call(self, method: str, path: str, **given: Any) -> Object:
        """One request. Raises Refused with the server's message."""
        answer = self._client.request(method, path, **given)
        if answer.is_success:
            return dict(answer.json())
        try:
            message = answer.json()["message"]
        except (ValueError, KeyError):
            message = answer.text
        raise Refused(answer.status_code, message)

    def ready(self) -> bool:
        """Whether the API server takes requests."""
        try:
            return self._client.get("/readyz", timeout=2).status_code == 200
        except (httpx.HTTPError, OSError):
            return False

    def close(self) -> None:
        self._client.close()


def _root(version: str) -> str:
    return f"/apis/{version}" if "/" in version else f"/api/{version}"
