"""The Kubernetes manifests, rendered and checked: `python -m toolchain.manifests`, a part of `make lint`.

Every kustomization that Argo CD applies is rendered with kustomize, and what comes out is held by kubeconform against
the schemas of two Kubernetes versions and of the CRDs, unknown fields refused; hadolint reads the Dockerfiles. Then
kube-score and checkov judge both (toolchain.judges).
"""

from __future__ import annotations

import itertools
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from plumbline.errors import PlumblineError
from plumbline.settings import ROOT
from toolchain import judges, manifest_tools
from toolchain.binaries import BinariesError

OVERLAYS = tuple(sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("k8s/*/overlays/*")))
"""An environment of a product each."""

APPLIED = ("k8s/apps", "k8s/platform", *OVERLAYS)
"""What Argo CD applies, each a kustomization."""

BY_HAND = ("k8s/argocd/argocd-cm.yaml", "k8s/apps/root.yaml")
"""What a person applies."""

DOCKERFILES = ("docker/airflow.Dockerfile", "docker/pipeline.Dockerfile", "docker/predictor.Dockerfile")
LOCAL_DOCKERFILES = (
    "docker/worker.Dockerfile",
    *sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("docker/local/*.Dockerfile")),
)
"""Those that stand on images of ours."""


Object = dict[str, Any]


class BadManifest(PlumblineError):
    """A manifest cannot be rendered, or is not what its schema says."""


def render(path: str, root: Path = ROOT) -> str:
    """What kustomize makes of a folder below `root`. Raises BadManifest with what it says."""
    return _ran("kustomize", [str(manifest_tools.find("kustomize")), "build", path], cwd=root)


def objects(path: str, root: Path = ROOT) -> list[Object]:
    """The objects of a folder's kustomization."""
    return _parsed(render(path, root))


def applications(name: str, root: Path = ROOT) -> list[Object]:
    """The Applications that an ApplicationSet of k8s/apps makes of its one `list`, or of the product of several."""
    import yaml

    (found,) = [
        made
        for made in objects("k8s/apps", root)
        if (made["kind"], made["metadata"]["name"]) == ("ApplicationSet", name)
    ]
    (generator,) = found["spec"]["generators"]
    lists = [each["list"]["elements"] for each in generator.get("matrix", {"generators": [generator]})["generators"]]
    made = []
    for elements in itertools.product(*lists):
        text = yaml.safe_dump(found["spec"]["template"])
        for key, value in (pair for element in elements for pair in element.items()):
            text = text.replace("{{." + key + "}}", value)
        made.append(yaml.safe_load(text))
    return made


def pod_specs(made: Object) -> list[tuple[str, Object]]:
    """The pods that an object would make, each with its name: of a Deployment or Job, and of KServe's kinds, whose
    containers stand in the ServingRuntime and the rest of the pod in the InferenceService."""
    name, spec = f"{made['kind']} {made['metadata']['name']}", made.get("spec", {})
    if made["kind"] in ("Deployment", "Job", "StatefulSet", "DaemonSet"):
        return [(name, spec["template"]["spec"])]
    if made["kind"] == "InferenceService":
        return [(name, spec["predictor"])]
    if made["kind"] in ("ServingRuntime", "Pod"):
        return [(name, spec)]
    if made["kind"] == "ClusterStorageContainer":
        return [(name, {"containers": [spec["container"]]})]
    return []


def containers(made: Object) -> list[Object]:
    """All containers of an object's pods."""
    return [
        container
        for _, spec in pod_specs(made)
        for kind in ("initContainers", "containers")
        for container in spec.get(kind, [])
    ]


def check(root: Path = ROOT) -> str:
    """One sentence of what was checked. Raises BadManifest with what does not fit."""
    rendered = {path: render(path, root) for path in APPLIED}
    rendered |= {path: (root / path).read_text() for path in BY_HAND}
    whole = "\n---\n".join(rendered.values())
    versions = list(manifest_tools.KUBERNETES)
    with ThreadPoolExecutor(len(versions)) as pool:
        list(pool.map(lambda version: conforms(whole, version), versions))
    lint_dockerfiles(root)
    judged = judges.check(_parsed(whole), (*DOCKERFILES, *LOCAL_DOCKERFILES), root)
    count = whole.count("\nkind: ") + whole.startswith("kind: ")
    return (
        f"{count} objects of k8s/ are what Kubernetes {' and '.join(versions)} and the CRDs take; "
        f"{len(DOCKERFILES) + len(LOCAL_DOCKERFILES)} Dockerfiles are clean; {judged}"
    )


def conforms(text: str, version: str) -> None:
    """Raises BadManifest, naming each object, unless kubeconform takes all of them for a version of Kubernetes."""
    command = [str(manifest_tools.find("kubeconform")), "-strict", "-n", "4", *manifest_tools.schema_locations(version)]
    _ran(f"kubeconform ({version})", [*command, "-"], given=text)


def lint_dockerfiles(root: Path = ROOT) -> None:
    """Raises BadManifest with hadolint's findings."""
    hadolint = shutil.which("hadolint") or str(Path(sys.executable).parent / "hadolint")
    files = [*DOCKERFILES, *(path for path in LOCAL_DOCKERFILES if (root / path).exists())]
    _ran("hadolint", [hadolint, "--config", ".hadolint.yaml", *files], cwd=root)


def _parsed(text: str) -> list[Object]:
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return [found for found in yaml.load_all(text, loader) if found]


def _ran(what: str, command: list[str], given: str | None = None, cwd: Path = ROOT) -> str:
    done = subprocess.run(command, cwd=cwd, input=given, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BadManifest(f"{what}: {(done.stdout + done.stderr).strip()[-4000:]}")
    return done.stdout


def main() -> None:
    """Exit code 1 with what does not fit."""
    try:
        print(check())
    except (PlumblineError, BinariesError) as error:
        sys.exit(f"manifests: {error}")


if __name__ == "__main__":
    main()
