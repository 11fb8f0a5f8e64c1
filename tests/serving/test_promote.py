"""From the registry to an environment's one file: what is committed, what is refused, and what undoes it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from plumb.main import app
from plumbline.errors import GateFailed
from plumbline.registry import registered_models, signing, trusted_models
from plumbline.registry.signing import Untrusted
from plumbline.settings import ROOT, settings
from plumbline.state import ledger, releases
from products.churn import CHURN
from serving import promote
from serving.promote import NotPromoted
from tests.serving.made_up_customers import RELEASE

pytestmark = pytest.mark.usefixtures("_home_settings")

MODEL = Path("k8s/churn/overlays/staging/model.yaml")


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clean checkout of the manifests alone."""
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "someone")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "someone@example.com")
    made = tmp_path / "repository"
    shutil.copytree(ROOT / "k8s", made / "k8s")
    git(tmp_path, "init", "--quiet", "--initial-branch", "main", str(made))
    git(made, "add", "--all")
    git(made, "commit", "--quiet", "--message", "as it is")
    return made


def record(passed: bool = True, challenger: bool = True) -> None:
    verdict = {"verdict": "passed" if passed else "failed", "failed": []}
    state = "COMPLETE" if passed else "GATE_FAILED"
    event = {"stage": "leakage_check", "state": state, "release_id": RELEASE, "gates": {"target_leakage": verdict}}
    ledger.record("churn", event)
    about = {"version": "1", "challenger": challenger, "verdict": "log loss 0.3 against 0.2: worse by 0.1"}
    ledger.record("churn", {"stage": "register", "state": "COMPLETE", **about})


@pytest.fixture
def _gates(serving_home: Path) -> Iterator[None]:
    """The ledger tells of a version 1 that passed; other tests' ledger is as it was afterwards."""
    folder = serving_home / "ledger" / "churn"
    before = set(folder.glob("*"))
    record()
    yield
    for path in set(folder.glob("*")) - before:
        path.unlink()


@pytest.mark.usefixtures("_gates")
def test_one_file_in_one_commit_on_a_branch_of_its_own(repository: Path) -> None:
    head = git(repository, "rev-parse", "HEAD")
    told = promote.promote(CHURN, "staging", "1", repository=repository)
    assert told["gates"] == ["orders_expectations", "target_leakage", "challenger"]
    assert told["next"] == "git merge --ff-only promote-staging-1"
    assert git(repository, "rev-parse", "HEAD") == head and git(repository, "status", "--porcelain") == ""
    assert len(git(repository, "worktree", "list").splitlines()) == 1
    assert git(repository, "diff", "--name-only", "main", "promote-staging-1").split() == [str(MODEL)]
    assert "+++ b/" + str(MODEL) in told["diff"]
    assert (
        git(repository, "log", "-1", "--format=%s", "promote-staging-1").strip() == "staging gets churn_xgb version 1"
    )

    version = registered_models.client().get_model_version(CHURN.model, "1")
    made = yaml.safe_load(git(repository, "show", f"promote-staging-1:{MODEL}"))
    annotations = made["metadata"]["annotations"]
    bundle = version.tags[trusted_models.SIGNATURE]
    assert annotations["plumbline.dev/model-version"] == "1"
    assert annotations["plumbline.dev/run-id"] == version.run_id
    assert annotations["plumbline.dev/model-digest"] == signing.digest(bundle)
    assert signing.unpacked(annotations["plumbline.dev/model-signature"], "it") == bundle
    uri = made["spec"]["predictor"]["model"]["storageUri"]
    trusted_models.load_folder(Path(uri.removeprefix("file://")), bundle, "what the cluster fetches")

    git(repository, "merge", "--quiet", "--ff-only", "promote-staging-1")
    assert promote.promote(CHURN, "staging", "1", repository=repository)["state"] == "unchanged"
    git(repository, *told["undo"].split()[1:], "--no-edit")
    assert git(repository, "diff", head.strip(), "HEAD") == ""


@pytest.mark.usefixtures("_gates")
def test_a_remote_is_pushed_to_or_the_commands_are_told(repository: Path, tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet", "--bare", "there.git")
    git(repository, "remote", "add", "origin", str(tmp_path / "there.git"))
    told = promote.promote(CHURN, "dev", "challenger", "s3://models/1", repository=repository)
    assert told["next"] == "git push -u origin promote-dev-1 && gh pr create --head promote-dev-1 --fill"
    assert '+      storageUri: "s3://models/1"' in told["diff"]
    told = promote.promote(CHURN, "prod", "1", push=True, repository=repository)
    assert told["pushed"] == "origin/promote-prod-1"
    assert git(tmp_path / "there.git", "branch", "--list").split() == ["promote-prod-1"]


@pytest.mark.usefixtures("_gates")
def test_a_file_s_place_and_a_demo_key_are_noted(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(promote, "promote", partial(promote.promote, repository=repository))
    client, name = registered_models.client(), CHURN.model
    was = client.get_model_version(name, "1").tags[trusted_models.SIGNED_BY]

    def notes(environment: str, signed_by: str, *more: str) -> list[str]:
        client.set_model_version_tag(name, "1", trusted_models.SIGNED_BY, signed_by)
        done = CliRunner().invoke(app, ["promote", "--env", environment, "1", *more], catch_exceptions=False)
        assert done.exit_code == 0 and f"signed_by: {signed_by}" in done.output
        return [line.partition(": ")[2] for line in done.output.splitlines() if line.startswith("note: ")]

    try:
        place, key = notes("dev", f"{signing.DEMO_KEY} 0123456789ab")
        assert "a file:// is fetched by pods of this machine only" in place
        assert key.startswith("a demo key says nothing about who signed: PLUMBLINE_SIGNING_KEY")
        assert notes("prod", "key 0123456789ab", "--storage-uri", "s3://models/1") == []
    finally:
        client.set_model_version_tag(name, "1", trusted_models.SIGNED_BY, was)


@pytest.mark.usefixtures("_gates")
def test_what_is_not_as_it_must_be_is_refused(repository: Path) -> None:
    def refused(match: str, environment: str = "staging", model: str = "1", **more: Any) -> None:
        with pytest.raises(NotPromoted, match=match):
            promote.promote(CHURN, environment, model, repository=repository, **more)

    refused("no environment 'qa': k8s/churn/overlays has dev, prod, staging", environment="qa")
    refused("has no version or alias '99'; versions are 1", model="99")
    refused("has no version or alias 'best'", model="best")
    refused("lie at mlflow-artifacts:/x, where no cluster can fetch them", storage_uri="mlflow-artifacts:/x")
    git(repository, "branch", "promote-staging-1")
    refused("the branch promote-staging-1 is there: merge it, or `git branch -D")
    (repository / "notes.txt").write_text("half done")
    refused(r"the checkout has 1 changes \(\?\? notes.txt\)")
    assert git(repository, "diff", "main", "promote-staging-1") == ""


def test_no_version_without_its_gates(repository: Path, serving_home: Path) -> None:
    def refused(match: str) -> None:
        with pytest.raises(GateFailed, match=match):
            promote.promote(CHURN, "staging", "1", repository=repository)

    folder = serving_home / "ledger" / "churn"
    before = set(folder.glob("*"))
    try:
        refused("leakage_check has no passed gates")
        record(challenger=False)
        refused("it did not become challenger: log loss 0.3 against 0.2: worse by 0.1")
        record(passed=False)
        refused("leakage_check has target_leakage failed")
        record()
        assert promote.promote(CHURN, "staging", "1", repository=repository)["state"] == "done", (
            "the newest verdict counts"
        )
    finally:
        for path in set(folder.glob("*")) - before:
            path.unlink()
    assert releases.read("churn", RELEASE).gates["orders_expectations"].verdict == "passed"


@pytest.mark.usefixtures("_gates")
def test_neither_an_unsigned_nor_an_altered_version(repository: Path) -> None:
    client, name = registered_models.client(), CHURN.model
    version = client.get_model_version(name, "1")
    client.delete_model_version_tag(name, "1", trusted_models.SIGNATURE)
    try:
        with pytest.raises(Untrusted, match="churn_xgb version 1 is not signed"):
            promote.promote(CHURN, "staging", "1", repository=repository)
    finally:
        client.set_model_version_tag(name, "1", trusted_models.SIGNATURE, version.tags[trusted_models.SIGNATURE])
    path = settings().home / "mlflow/artifacts/models" / version.source.rpartition("/")[2] / "artifacts/model.ubj"
    whole = path.read_bytes()
    path.write_bytes(whole + b"\n")
    try:
        with pytest.raises(Untrusted, match="was altered in model.ubj"):
            promote.promote(CHURN, "staging", "1", repository=repository)
    finally:
        path.write_bytes(whole)
    assert git(repository, "branch", "--list").split() == ["*", "main"]
