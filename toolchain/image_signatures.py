"""Beside an image in its registry: its signature, as cosign lays it, and its list of packages, as OCI 1.1 does.

    python -m toolchain.image_signatures REGISTRY/NAME@sha256:…   signs an image of others that you mirror

The signature is of a small JSON that names the image's digest, "simple signing", and is made with the key of
PLUMBLINE_SIGNING_KEY (P-256). It lies at the tag `sha256-<hex>.sig`, where policy-controller and
`cosign verify --key … --insecure-ignore-tlog` look for it: nothing but the registry is asked, no transparency log. The
list is an artifact whose `subject` is the image, which a registry names among the image's referrers; one that knows no
referrers, as before OCI 1.1, gets them as an index at the tag `sha256-<hex>`. A registry that wants a login for writes
is not served: sign there with `cosign sign --key`.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import hashlib
import json
import sys
from pathlib import Path
from typing import Any, ClassVar

import httpx

from plumbline.errors import PlumblineError
from plumbline.registry import signing

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
MANIFESTS = (MANIFEST, INDEX, "application/vnd.docker.distribution.manifest.v2+json")
CONFIG = "application/vnd.oci.image.config.v1+json"
EMPTY = "application/vnd.oci.empty.v1+json"
PAYLOAD = "application/vnd.dev.cosign.simplesigning.v1+json"
SIGNATURE = "dev.cosignproject.cosign/signature"
"""The annotation of a payload that holds its signature, in base64."""

LIST, BUNDLE = "application/vnd.cyclonedx+json", "application/vnd.dev.sigstore.bundle.v0.3+json"
TITLE = "org.opencontainers.image.title"
TIMEOUT_SECONDS = 30.0

Object = dict[str, Any]


class UnsignedImage(PlumblineError):
    """An image is not signed by a trusted key."""

    exit_code: ClassVar[int] = 3


class RegistryRefused(PlumblineError):
    """A registry does not take, or give, what it must."""


class Repository:
    """One image's place in a registry, `registry/name`; plain HTTP on loopback alone."""

    def __init__(self, image: str) -> None:
        self.image = image
        host, _, name = image.partition("/")
        scheme = "http" if host.partition(":")[0] in ("127.0.0.1", "localhost") else "https"
        self._url = f"{scheme}://{host}/v2/{name}"

    def manifest(self, reference: str) -> bytes | None:
        """A manifest or index by its tag or digest, None when there is none. Raises RegistryRefused."""
        found = self._call("GET", f"/manifests/{reference}", headers={"Accept": ", ".join(MANIFESTS)})
        return None if found.status_code == 404 else found.content

    def blob(self, digest: str) -> bytes:
        """What a digest names. Raises RegistryRefused, also when it is not what it is named."""
        found = self._call("GET", f"/blobs/{digest}", follow_redirects=True)
        if not found.is_success or _digest(found.content) != digest:
            raise RegistryRefused(f"{self.image} has no {digest}: HTTP {found.status_code}")
        return found.content

    def put(self, content: bytes, media_type: str, **more: Any) -> Object:
        """Uploads what is not there yet; its descriptor, with `more` in it. Raises RegistryRefused."""
        digest = _digest(content)
        if self._call("HEAD", f"/blobs/{digest}").status_code == 404:
            begun = self._call("POST", "/blobs/uploads/")
            place = begun.url.join(begun.headers.get("Location", "")).copy_merge_params({"digest": digest})
            self._call("PUT", place, content=content, headers={"Content-Type": "application/octet-stream"})
        return {"mediaType": media_type, "digest": digest, "size": len(content), **more}

    def put_manifest(self, manifest: Object, reference: str | None = None) -> tuple[Object, bool]:
        """Writes it at a tag, or at its digest; its descriptor, and whether the registry noted its subject itself."""
        content = json.dumps(manifest).encode()
        digest, media_type = _digest(content), manifest["mediaType"]
        done = self._call(
            "PUT", f"/manifests/{reference or digest}", content=content, headers={"Content-Type": media_type}
        )
        return {"mediaType": media_type, "digest": digest, "size": len(content)}, "OCI-Subject" in done.headers

    def _call(self, method: str, where: str | httpx.URL, **given: Any) -> httpx.Response:
        url = where if isinstance(where, httpx.URL) else self._url + where
        try:
            done = httpx.request(method, url, timeout=TIMEOUT_SECONDS, **given)
        except httpx.HTTPError as error:
            raise RegistryRefused(f"{self.image}: its registry does not answer ({error})") from None
        if done.is_success or done.is_redirect or (done.status_code == 404 and method in ("GET", "HEAD")):
            return done
        told = "it wants a login: `cosign sign --key` has one" if done.status_code == 401 else done.text[:300]
        raise RegistryRefused(f"{self.image}: {method} ended with HTTP {done.status_code}: {told}")


def sign(image: str, digest: str) -> None:
    """Signs `registry/name@digest`, beside signatures of other keys; nothing when the key has signed it.

    Raises RegistryRefused, and SettingsError when the key cannot be used.
    """
    repository = Repository(image)
    before = _layers(repository, digest)
    if any(_holds(repository, layer, digest) for layer in before):
        return
    payload = json.dumps(
        {
            "critical": {
                "identity": {"docker-reference": image},
                "image": {"docker-manifest-digest": digest},
                "type": "cosign container image signature",
            },
            "optional": None,
        }
    ).encode()
    made = base64.b64encode(signing.signature(payload)).decode()
    layers = [*before, repository.put(payload, PAYLOAD, annotations={SIGNATURE: made})]
    config: Object = {"architecture": "", "os": "", "config": {}}
    config["rootfs"] = {"type": "layers", "diff_ids": [layer["digest"] for layer in layers]}
    described = repository.put(json.dumps(config).encode(), CONFIG)
    repository.put_manifest(_manifest(described, layers), _tag(digest) + ".sig")


def verify(image: str, digest: str) -> None:
    """Raises UnsignedImage unless a trusted key signed `registry/name@digest`; RegistryRefused, SettingsError."""
    repository = Repository(image)
    layers = _layers(repository, digest)
    if not layers:
        raise UnsignedImage(f"{image}@{digest} is not signed: `make images REGISTRY=…` signs what it pushes")
    if not any(_holds(repository, layer, digest) for layer in layers):
        raise UnsignedImage(f"{image}@{digest} is signed by no trusted key, or its signature is of another image")


def attach(image: str, digest: str, listed: Path, signature: Path) -> str:
    """Puts a CycloneDX list and its signature beside an image, as one artifact; the artifact's digest.

    Raises RegistryRefused, also when the image is not there.
    """
    repository = Repository(image)
    subject = repository.manifest(digest)
    if subject is None:
        raise RegistryRefused(f"{image}@{digest} is not there: push it first")
    layers = [
        repository.put(path.read_bytes(), kind, annotations={TITLE: path.name})
        for path, kind in ((listed, LIST), (signature, BUNDLE))
    ]
    manifest = _manifest(repository.put(b"{}", EMPTY), layers)
    media_type = json.loads(subject)["mediaType"]
    manifest |= {"artifactType": LIST, "subject": {"mediaType": media_type, "digest": digest, "size": len(subject)}}
    described, noted = repository.put_manifest(manifest)
    if not noted:
        found = repository.manifest(_tag(digest))
        index = json.loads(found) if found else {"schemaVersion": 2, "mediaType": INDEX, "manifests": []}
        others = [found for found in index["manifests"] if found["digest"] != described["digest"]]
        index["manifests"] = [*others, {**described, "artifactType": LIST}]
        repository.put_manifest(index, _tag(digest))
    return str(described["digest"])


def _layers(repository: Repository, digest: str) -> list[Object]:
    """The signed payloads that lie beside an image, whoever signed them."""
    found = repository.manifest(_tag(digest) + ".sig")
    return list(json.loads(found)["layers"]) if found else []


def _holds(repository: Repository, layer: Object, digest: str) -> bool:
    """Whether a layer is a payload that names the image's digest, signed by a trusted key."""
    try:
        given = base64.b64decode(layer.get("annotations", {}).get(SIGNATURE, ""), validate=True)
    except binascii.Error:
        return False
    payload = repository.blob(layer["digest"])
    if not signing.is_signature(given, payload):
        return False
    return bool(json.loads(payload)["critical"]["image"]["docker-manifest-digest"] == digest)


def _manifest(config: Object, layers: list[Object]) -> Object:
    return {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers}


def _tag(digest: str) -> str:
    return digest.replace(":", "-")


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def main() -> None:
    """Exit code 1 with a sentence when an image cannot be signed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", nargs="+", metavar="REGISTRY/NAME@DIGEST")
    for given in parser.parse_args().images:
        image, _, digest = given.partition("@")
        if not digest.startswith("sha256:"):
            parser.error(f"{given}: expected registry/name@sha256:…; a tag moves, and what was signed is then not it")
        try:
            sign(image, digest)
        except PlumblineError as error:
            sys.exit(f"image_signatures: {error}")
        print(f"{given} is signed by {signing.signer()}")


if __name__ == "__main__":
    main()
