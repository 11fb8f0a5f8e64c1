"""Ships a registered model to an environment: one file, one commit, on a branch of its own.

`k8s/<product>/overlays/<environment>/model.yaml` names version, run, digest, signature and where the files lie; nothing
else has to be edited. What comes of the commit is up to whoever merges it: Argo CD syncs, the Rollout ramps, the
guardrails judge. The checkout is left as it is: the commit is made in a worktree that is gone afterwards.
"""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plumbline import verdict
from plumbline.errors import GateFailed, PlumblineError
from plumbline.product import Product
from plumbline.registry import registered_models, signing, trusted_models
from plumbline.settings import ROOT
from plumbline.state import ledger, releases

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

MODEL_FILE = "model.yaml"
ANNOTATION = "plumbline.dev"
STORES = ("s3://", "gs://", "https://", "pvc://", "file://")
"""Where KServe's storage initializer can fetch from; a `file://` is for a cluster on this very machine."""

FILE = """\
# The model of this environment, and all that ships with it. Written by `plumb promote`; undo: `git revert`.
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata:
  name: {name}
  annotations:
    {annotation}/model-version: {version}
    {annotation}/run-id: {run}
    {annotation}/model-digest: {digest}
    {annotation}/model-signature: {signature}
spec:
  predictor:
    model:
      storageUri: {uri}
"""


class NotPromoted(PlumblineError):
    """Nothing was committed."""


def promote(
    product: Product,
    environment: str,
    model: str,
    storage_uri: str | None = None,
    push: bool = False,
    repository: Path = ROOT,
) -> dict[str, Any]:
    """Commits a version (its number, or an alias) as an environment's model, on a branch of its own (`branch_of`).

    Raises NotPromoted for an unknown environment or version, a checkout with changes, a branch that is there;
    GateFailed when not all gates of the version passed, Untrusted when its files are not those that were signed.
    """
    overlays = Path(product.manifests) / "overlays"
    path = overlays / environment / MODEL_FILE
    if not (repository / path).is_file():
        known = sorted(found.parent.name for found in (repository / overlays).glob(f"*/{MODEL_FILE}"))
        raise NotPromoted(f"no environment {environment!r}: {overlays} has {', '.join(known) or 'none'}")
    version = _version(product, model)
    number = str(version.version)
    gates = passed_gates(product, version)
    trusted_models.verify(version)
    if changed := _git(repository, "status", "--porcelain").splitlines():
        raise NotPromoted(
            f"the checkout has {len(changed)} changes ({changed[0].strip()}): commit or stash them, since what is "
            "promoted is what is committed"
        )
    text = model_file(product, version, storage_uri)
    if text == (repository / path).read_text():
        return {"state": "unchanged", "why": f"{path} names version {number} already"}
    branch = branch_of(product, environment, number)
    commit = _committed(repository, branch, path, text, _message(product, environment, version))
    diff = _git(repository, "diff", f"{commit}~1", commit, "--", str(path))
    told = {"state": "done", "version": number, "signed_by": version.tags.get(trusted_models.SIGNED_BY, "unknown")}
    told |= {"branch": branch, "commit": commit[:12], "gates": gates, "diff": diff}
    return told | _next(repository, branch, push) | {"undo": f"git revert {commit[:12]}"}


def branch_of(product: Product, environment: str, version: str) -> str:
    """`promote-<env>-<version>`; one of a product whose commands have its name before them has it too."""
    return "-".join(part for part in ("promote", product.command, environment, version) if part)


def model_file(product: Product, version: ModelVersion, storage_uri: str | None = None) -> str:
    """The text of an environment's model file. Raises Untrusted without a signature, NotPromoted without a place that
    a cluster can fetch from."""
    what = f"{product.model} version {version.version}"
    bundle = version.tags.get(trusted_models.SIGNATURE)
    if not bundle:
        register = product.command_of("register")
        raise signing.Untrusted(f"{what} is not signed: `{register}` signs what this platform trained")
    uri = storage_uri or _artifacts(version)
    if not uri.startswith(STORES):
        raise NotPromoted(
            f"the files of {what} lie at {uri}, where no cluster can fetch them: --storage-uri names a copy "
            f"({', '.join(STORES)}); its files must be the signed ones"
        )
    return FILE.format(
        name=product.name,
        annotation=ANNOTATION,
        version=json.dumps(str(version.version)),
        run=json.dumps(version.run_id),
        digest=signing.digest(bundle),
        signature=signing.packed(bundle),
        uri=json.dumps(uri),
    )


def passed_gates(product: Product, version: ModelVersion) -> list[str]:
    """The gates that the version passed on its way: its release's, the leakage gates, and registration's verdict.

    Raises GateFailed that names what failed, or what no record tells of.
    """
    what, release_id = f"{product.model} version {version.version}", version.tags.get("release_id", "")
    if not release_id.isdecimal():
        raise GateFailed(f"{what} does not name its release: no gate can be shown to have passed")
    found = {
        f"release {release_id}": releases.read(product.name, int(release_id)).gates,
        "leakage_check": verdict.of_event(_newest(product, "leakage_check", release_id=int(release_id))),
    }
    for where, gates in found.items():
        failed = verdict.failed(gates.values())
        if failed or not gates:
            raise GateFailed(
                f"{what} is not promoted: {where} has {', '.join(failed) + ' failed' if failed else 'no passed gates'}"
            )
    registered = _newest(product, "register", version=str(version.version))
    if not registered.get("challenger"):
        why = registered.get("verdict", "the ledger does not tell of its registration")
        raise GateFailed(f"{what} is not promoted, it did not become challenger: {why}")
    return [*(name for gates in found.values() for name in sorted(gates)), "challenger"]


def _newest(product: Product, stage: str, **about: Any) -> dict[str, Any]:
    """The newest event of a stage's end that says this of itself; an empty one when there is none."""
    found: dict[str, Any] = {}
    for event in ledger.events(product.name):
        if event.get("stage") == stage and event["state"] != "START" and about.items() <= event.items():
            found = event
    return found


def _version(product: Product, model: str) -> ModelVersion:
    if not registered_models.exist():
        train, register = (product.command_of(stage) for stage in ("train", "register"))
        raise NotPromoted(f"no model registry in this home yet: `{train}`, then `{register}`")
    found = registered_models.find(product.model, model)
    if found is None:
        known = ", ".join(version.version for version in registered_models.versions(product.model)) or "none"
        raise NotPromoted(f"{product.model} has no version or alias {model!r}; versions are {known}")
    return found


def _artifacts(version: ModelVersion) -> str:
    """Where the version's files lie; a version's source is the name of a logged model, not a place."""
    source = str(version.source)
    if found := re.fullmatch(r"models:/(m-[0-9a-f]+)", source):
        source = str(registered_models.client().get_logged_model(found[1]).artifact_location)
    return f"file://{source}" if source.startswith("/") else source


def _message(product: Product, environment: str, version: ModelVersion) -> str:
    tags = version.tags
    about = [
        f"run {version.run_id}",
        *(f"{name} {tags[name]}" for name in ("data_version", "code_sha") if name in tags),
    ]
    return f"{environment} gets {product.model} version {version.version}\n\n{tags.get('verdict', '')}\n" + "\n".join(
        about
    )


def _committed(repository: Path, branch: str, path: Path, text: str, message: str) -> str:
    """Commits the file's new text on a new branch of HEAD; the commit. The checkout stays where it is."""
    if _git(repository, "branch", "--list", branch):
        raise NotPromoted(f"the branch {branch} is there: merge it, or `git branch -D {branch}` and promote again")
    with tempfile.TemporaryDirectory(prefix="plumbline-promote-") as place:
        tree = Path(place) / "tree"
        _git(repository, "worktree", "add", "--quiet", "-b", branch, str(tree), "HEAD")
        try:
            (tree / path).write_text(text)
            _git(tree, "commit", "--quiet", "--message", message, "--", str(path))
            return _git(tree, "rev-parse", "HEAD").strip()
        except BaseException:
            _git(repository, "worktree", "remove", "--force", str(tree))
            _git(repository, "branch", "-D", branch)
            raise
        finally:
            if tree.exists():
                _git(repository, "worktree", "remove", "--force", str(tree))


def _next(repository: Path, branch: str, push: bool) -> dict[str, Any]:
    """What is left for a person to do, or was done by pushing."""
    remote = next(iter(_git(repository, "remote").split()), None)
    if remote is None:
        if push:
            raise NotPromoted(f"{branch} is committed, and there is no remote to push it to: `git remote add origin …`")
        return {"next": f"git merge --ff-only {branch}"}
    request = f"gh pr create --head {branch} --fill"
    if not push:
        return {"next": f"git push -u {remote} {branch} && {request}"}
    _git(repository, "push", "--quiet", "--set-upstream", remote, branch)
    return {"pushed": f"{remote}/{branch}", "next": request}


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        told = (done.stderr or done.stdout).strip()
        raise NotPromoted(f"`git {' '.join(arguments[:3])}` in {folder} ended with {done.returncode}: {told[-400:]}")
    return done.stdout
