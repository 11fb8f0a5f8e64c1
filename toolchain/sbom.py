"""What is in an image: a CycloneDX list of its packages, signed with the key that signs models.

`make images` writes both beside each other, `<home>/images/<name>/bom/bom.cdx.json` and `bom.signature.json`. The list
names the image by its id, so a list of another image does not pass for this one's.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from plumbline import files
from plumbline.errors import PlumblineError
from plumbline.registry import signing
from plumbline.settings import settings

LISTED = r"""
for python in /opt/venvs/*/bin/python; do
  [ -x "$python" ] && "$python" - <<'P'
import importlib.metadata as m
for found in m.distributions():
    print("pypi", found.name, found.version)
P
done
dpkg-query --show --showformat 'deb ${Package} ${Version}\n'
[ ! -d /opt/cache ] || find /opt/cache -name '*.jar' -printf 'jar %f -\n'
"""


class NotListed(PlumblineError):
    """An image does not say what is in it."""


def write(name: str, image: str) -> Path:
    """Lists and signs an image's packages; the folder. Raises NotListed."""
    listing = ["docker", "run", "--rm", "--network", "none", "--entrypoint", "sh", image, "-c", LISTED]
    done = subprocess.run(listing, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotListed(f"{image} does not say what is in it: {done.stderr.strip()[-400:]}")
    identity = ["docker", "image", "inspect", "--format", "{{.Id}}", image]
    told = subprocess.run(identity, capture_output=True, text=True, check=True).stdout.strip()
    listed, signature = paths(name)
    listed.parent.mkdir(parents=True, exist_ok=True)
    files.write_whole(listed, json.dumps(document(name, told, done.stdout), indent=1) + "\n")
    files.write_whole(signature, signing.sign(listed.parent).bundle)
    return signature.parent


def paths(name: str) -> tuple[Path, Path]:
    """An image's list and its signature."""
    folder = settings().home / "images" / name
    return folder / "bom" / "bom.cdx.json", folder / "bom.signature.json"


def verify(name: str, image_id: str) -> None:
    """Raises Untrusted unless the list is signed, NotListed unless it is of that image."""
    listed, signature = paths(name)
    signing.verify(listed.parent, signature.read_text(), f"the list of {name}")
    found = json.loads(listed.read_text())["metadata"]["component"]["version"]
    if found != image_id:
        raise NotListed(f"the list of {name} is of {found}, expected {image_id}: `make images` lists it anew")


def document(name: str, image_id: str, listed: str) -> dict[str, Any]:
    """The CycloneDX document of lines `kind name version`."""
    components = {}
    for line in listed.splitlines():
        kind, package, version = line.split(" ", 2)
        if kind == "jar":
            package, _, version = package.removesuffix(".jar").rpartition("-")
        purl = {"pypi": "pkg:pypi", "deb": "pkg:deb/debian", "jar": "pkg:maven"}[kind] + f"/{package}@{version}"
        components[purl] = {
            "type": "library",
            "bom-ref": purl,
            "name": package,
            "version": version,
            **({} if kind == "jar" else {"purl": purl}),  # a jar's file name does not say its group
        }
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {"type": "container", "bom-ref": name, "name": f"plumbline/{name}", "version": image_id}
        },
        "components": [components[purl] for purl in sorted(components)],
    }
