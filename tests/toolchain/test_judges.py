"""kube-score and checkov: what they find is told in their words, and only a waiver with a reason lets it stand."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from toolchain import judges, manifests
from toolchain.judges import Finding, JudgeError

Object = dict[str, Any]
BARE = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "bare", "namespace": "shop"},
    "spec": {
        "replicas": 2,
        "selector": {"matchLabels": {"app": "bare"}},
        "template": {
            "metadata": {"labels": {"app": "bare"}},
            "spec": {
                "hostNetwork": True,
                "containers": [{"name": "bare", "image": "bare:latest", "securityContext": {"privileged": True}}],
            },
        },
    },
}
NOBODY = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "nobody", "namespace": "shop"},
    "spec": {"selector": {"app": "nobody"}, "ports": [{"port": 80}]},
}


@cache
def churn() -> str:
    return manifests.render("k8s/churn/overlays/prod")


def objects() -> list[Object]:
    return list(yaml.safe_load_all(churn()))


def one(made: list[Object], kind: str) -> Object:
    (found,) = [each for each in made if each["kind"] == kind]
    return found


def checks(found: set[Finding], where: str) -> dict[str, str]:
    return {finding.check: finding.words for finding in found if finding.where == where}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder whose one Dockerfile runs as root and whose waivers are of nothing."""
    (tmp_path / "Dockerfile").write_text("FROM python:3.11\nHEALTHCHECK CMD true\nUSER root\n")
    (tmp_path / judges.WAIVERS).write_text("{}")
    return tmp_path


def test_kube_score_finds_what_is_bare_and_what_nobody_answers() -> None:
    found = judges.kube_score([BARE, NOBODY])
    bare = checks(found, "Deployment shop/bare")
    assert bare["container-image-tag"] == "critical: bare: Image with latest tag"
    assert bare["container-security-context-privileged"] == "critical: bare: The container is privileged"
    assert {"container-resources", "pod-networkpolicy", "deployment-has-poddisruptionbudget"} <= set(bare)
    nobody = checks(found, "Service shop/nobody")
    assert nobody == {"service-targets-pod": "critical: The services selector does not match any pods"}


def test_checkov_finds_what_is_bare() -> None:
    bare = checks(judges.checkov([BARE]), "Deployment shop/bare")
    assert bare["CKV_K8S_16"] == "Container should not be privileged"
    assert bare["CKV_K8S_19"] == "Containers should not share the host network namespace"


def test_a_predictor_is_judged_as_the_deployment_that_it_comes_to() -> None:
    made = objects()
    target = one(judges.in_known_kinds(made), "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]
    assert target == {"apiVersion": "apps/v1", "kind": "Deployment", "name": "churn"}
    assert one(made, "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]["kind"] == "Rollout", "what is given stays"
    (container,) = one(made, "ServingRuntime")["spec"]["containers"]
    container["securityContext"]["readOnlyRootFilesystem"] = False
    del one(made, "InferenceService")["spec"]["predictor"]["affinity"]
    told = checks(judges.kube_score(made), "Deployment churn-prod/churn")
    assert told["container-security-context-readonlyrootfilesystem"].startswith("critical: kserve-container: ")
    assert "deployment-has-host-podantiaffinity" in told
    assert "CKV_K8S_22" in checks(judges.checkov(made), "Deployment churn-prod/churn")


def test_all_that_is_found_is_told_at_once(root: Path) -> None:
    with pytest.raises(JudgeError) as told:
        judges.check([BARE, NOBODY], ["Dockerfile"], root)
    for words in (
        "checkov CKV_DOCKER_8: Dockerfile: Ensure the last USER is not root",
        "checkov CKV_K8S_16: Deployment shop/bare: Container should not be privileged",
        "kube-score service-targets-pod: Service shop/nobody: critical: The services selector does not match any pods",
        "mend it, or waive it in .judges.yaml with a reason",
    ):
        assert words in str(told.value)


def test_a_waiver_waives_what_it_names_and_one_of_nothing_is_refused(root: Path) -> None:
    waivers = root / judges.WAIVERS
    waivers.write_text("checkov:\n  CKV_DOCKER_8 Docker*: it is a test's\n")
    assert judges.check([], ["Dockerfile"], root).endswith("1 lines, each with its reason")
    waivers.write_text("checkov:\n  CKV_DOCKER_8 docker/*: another folder's\n")
    with pytest.raises(JudgeError, match=r"(?s)checkov CKV_DOCKER_8: Dockerfile.*CKV_DOCKER_8 docker/\*: nothing is f"):
        judges.check([], ["Dockerfile"], root)


@pytest.mark.parametrize("reason", ["", "''", "[]"])
def test_a_waiver_without_a_reason_is_refused(reason: str, root: Path) -> None:
    (root / judges.WAIVERS).write_text(f"checkov:\n  CKV_DOCKER_8 *: {reason}\n")
    with pytest.raises(JudgeError, match=r"\.judges\.yaml: checkov CKV_DOCKER_8 \*: no reason"):
        judges.waivers(root)


def test_a_judge_that_cannot_read_or_is_not_there_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(JudgeError, match="kube-score ended with 1"):
        judges.kube_score([{**BARE, "spec": "nothing"}])
    monkeypatch.setattr(judges, "ENVIRONMENTS", tmp_path)
    with pytest.raises(JudgeError, match=r"checkov/bin/checkov is not there: `make manifest-tools` installs it"):
        judges.checkov([BARE])
