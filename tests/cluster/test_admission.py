"""What the API server refuses, with the words that a person reads: every manifest in bad/, each for its one reason."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from control_plane import eventually
from kube import Kube, Refused

from toolchain import manifests

pytestmark = pytest.mark.cluster

BAD = sorted((Path(__file__).parent / "bad").glob("*.yaml"))
REFUSED = "# refused: "
NAMESPACE = "churn-prod"


@pytest.fixture(scope="module")
def guarded(kube: Kube) -> Kube:
    """The namespace of prod, empty, once the policies are in force there."""
    (namespace,) = (made for made in manifests.objects("k8s/churn/overlays/prod") if made["kind"] == "Namespace")
    kube.apply(namespace)
    probe = yaml.safe_load((Path(__file__).parent / "bad" / "pod-image-latest.yaml").read_text())

    def in_force() -> bool:
        try:
            kube.apply(probe, dryRun="All")
        except Refused as refused:
            return "plumbline.dev" in str(refused)
        return False

    eventually(in_force, 30, "the policies are in force")
    return kube


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_a_bad_manifest_is_refused_for_its_one_reason(path: Path, guarded: Kube) -> None:
    first, _, rest = path.read_text().partition("\n")
    assert first.startswith(REFUSED)
    with pytest.raises(Refused) as told:
        guarded.apply(yaml.safe_load(rest), dryRun="All")
    assert first.removeprefix(REFUSED).strip() in str(told.value)
    assert str(told.value).count("denied request:") <= 1, "it shows one fault, not two"


def test_no_model_is_promoted_yet(guarded: Kube) -> None:
    """An environment as it is committed, before its first promotion, says what to do."""
    for made in manifests.objects("k8s/churn/overlays/prod"):
        if made["kind"] == "InferenceService":
            with pytest.raises(Refused, match=r"`plumb promote --env … VERSION` writes them"):
                guarded.apply(made, dryRun="All")


def test_other_namespaces_are_not_ours(guarded: Kube) -> None:
    pod = yaml.safe_load((Path(__file__).parent / "bad" / "pod-image-latest.yaml").read_text())
    pod["metadata"]["namespace"] = "default"
    pod["spec"]["serviceAccountName"] = "default"
    assert guarded.apply(pod, dryRun="All")["spec"]["containers"][0]["image"] == "busybox:latest"
