"""Which images a namespace of ours takes: Sigstore's policy-controller on the real API server, and a real registry."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import policy_controller
import pytest
import yaml
from control_plane import eventually
from kube import Kube, Object, Refused

from plumbline.registry import signing
from plumbline.settings import settings
from toolchain import image_signatures, images, manifests, sbom
from toolchain.image_signatures import Repository, UnsignedImage

sys.path.append(str(Path(__file__).parents[1] / "node"))
import registry

pytestmark = pytest.mark.cluster

NAMESPACE, FREE = "signed-prod", "signed-not"
POD = Path(__file__).parent / "bad" / "pod-image-latest.yaml"
POLICY = "failed policy: images-are-signed.plumbline.dev"


@pytest.fixture(scope="module")
def keys() -> dict[str, str]:
    """Private keys by whose they are: ours, which the policy trusts, and a stranger's."""
    from cryptography.hazmat.primitives.asymmetric import ec

    return {who: signing._private_pem(ec.generate_private_key(ec.SECP256R1())).decode() for who in ("ours", "others")}


@pytest.fixture(scope="module")
def address(kube: Kube, keys: dict[str, str]) -> Iterator[str]:
    """A registry; the key in the settings is ours."""
    if shutil.which("docker-registry") is None:
        pytest.fail("no docker-registry on PATH: Debian's package of that name has it")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PLUMBLINE_SIGNING_KEY", keys["ours"])
        settings.cache_clear()
        try:
            yield registry.start()
        finally:
            registry.stop()
    settings.cache_clear()


@pytest.fixture(scope="module")
def guarded(kube: Kube, address: str) -> Iterator[Kube]:
    """A namespace with the labels of prod's and one without any, the policy with our key, and who asks for it."""
    (prod,) = (made for made in manifests.objects("k8s/churn/overlays/prod") if made["kind"] == "Namespace")
    namespace(kube, NAMESPACE, prod["metadata"]["labels"])
    namespace(kube, FREE, {})
    policy_controller.start(kube)
    (policy,) = (made for made in manifests.objects("k8s/platform") if made["kind"] == "ClusterImagePolicy")
    public = signing._public_pem(signing._private_key()[0].public_key()).decode()
    policy["spec"]["authorities"][0]["key"]["data"] = public
    kube.apply(policy)
    try:
        signed = pushed(address, "first")
        image_signatures.sign(*signed)
        eventually(lambda: refusal(kube, signed) is None, 60, "the policy is in force, with our key")
        yield kube
    finally:
        policy_controller.remove(kube)


def namespace(kube: Kube, name: str, labels: dict[str, str]) -> None:
    """A namespace, once pods can be made in it."""
    kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
    account = f"/api/v1/namespaces/{name}/serviceaccounts/default"
    eventually(lambda: kube.get(account), 30, f"{name} has its account")


def pushed(address: str, name: str) -> tuple[str, str]:
    """An image of that name, in the registry: its place and digest."""
    image = f"{address}/plumbline/{name}"
    repository = Repository(image)
    layer = repository.put(name.encode(), "application/vnd.oci.image.layer.v1.tar")
    config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]}}
    described = repository.put(json.dumps(config).encode(), image_signatures.CONFIG)
    made = {"schemaVersion": 2, "mediaType": image_signatures.MANIFEST, "config": described, "layers": [layer]}
    return image, str(repository.put_manifest(made, "latest")[0]["digest"])


def pod(image: tuple[str, str], namespace: str = NAMESPACE) -> Object:
    made: Object = yaml.safe_load(POD.read_text())
    made["metadata"]["namespace"] = namespace
    made["spec"]["containers"][0]["image"] = "@".join(image)
    return made


def refusal(kube: Kube, image: tuple[str, str], namespace: str = NAMESPACE) -> str | None:
    """What the API server says to a pod of that image, None when it takes it."""
    try:
        kube.apply(pod(image, namespace), dryRun="All")
    except Refused as refused:
        return str(refused)
    return None


def signed_by(key: str, image: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("PLUMBLINE_SIGNING_KEY", key)
        settings.cache_clear()
        image_signatures.sign(*image)
    settings.cache_clear()


def test_an_image_that_we_signed_runs(guarded: Kube, address: str) -> None:
    image = pushed(address, "ours")
    image_signatures.sign(*image)
    assert refusal(guarded, image) is None
    image_signatures.verify(*image)


def test_an_unsigned_image_is_refused_by_name(guarded: Kube, address: str) -> None:
    image = pushed(address, "unsigned")
    told = refusal(guarded, image)
    assert told is not None
    print(f"\n  {told}")
    assert POLICY in told and "@".join(image) in told and "no signatures found" in told
    assert refusal(guarded, image, FREE) is None, "other namespaces are not ours"
    with pytest.raises(UnsignedImage, match=r"is not signed: `make images REGISTRY=…` signs what"):
        image_signatures.verify(*image)


def test_an_image_signed_by_a_stranger_is_refused_until_we_sign_it_too(
    guarded: Kube, address: str, keys: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    image = pushed(address, "strange")
    signed_by(keys["others"], image, monkeypatch)
    told = refusal(guarded, image)
    assert told is not None
    print(f"\n  {told}")
    assert POLICY in told and "invalid signature" in told
    with pytest.raises(UnsignedImage, match="is signed by no trusted key"):
        image_signatures.verify(*image)
    image_signatures.sign(*image)
    assert refusal(guarded, image) is None


def test_a_signature_of_another_image_does_not_count(guarded: Kube, address: str) -> None:
    """Ours, but laid beside an image that we never saw."""
    good, bad = pushed(address, "good"), pushed(address, "swapped")
    image_signatures.sign(*good)
    repository = Repository(bad[0])
    for layer in (layers := image_signatures._layers(Repository(good[0]), good[1])):
        repository.put(Repository(good[0]).blob(layer["digest"]), image_signatures.PAYLOAD)
    config = repository.put(b"{}", image_signatures.CONFIG)
    repository.put_manifest(image_signatures._manifest(config, layers), image_signatures._tag(bad[1]) + ".sig")
    told = refusal(guarded, bad)
    assert told is not None and POLICY in told
    with pytest.raises(UnsignedImage, match="or its signature is of another image"):
        image_signatures.verify(*bad)


def test_every_container_of_a_pod_counts(guarded: Kube, address: str) -> None:
    image = pushed(address, "whole")
    image_signatures.sign(*image)
    made = pod(image)
    strange = {**made["spec"]["containers"][0], "name": "strange", "image": "@".join(pushed(address, "beside"))}
    made["spec"]["initContainers"] = [strange]
    with pytest.raises(Refused, match=POLICY):
        guarded.apply(made, dryRun="All")


def test_while_nobody_verifies_no_pod_comes(guarded: Kube, address: str) -> None:
    """It fails closed, in our namespaces alone, and mends itself."""
    image = pushed(address, "meanwhile")
    image_signatures.sign(*image)
    policy_controller.stop()
    try:
        told = refusal(guarded, image)
        assert told is not None
        print(f"\n  {told}")
        assert 'failed calling webhook "policy.sigstore.dev"' in told
        assert refusal(guarded, image, FREE) is None
    finally:
        policy_controller.start(guarded)
    eventually(lambda: refusal(guarded, image) is None, 60, "it verifies again")


def test_what_is_pushed_is_signed_and_its_packages_are_beside_it(
    guarded: Kube, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digests = tmp_path / "kustomization.yaml"
    digests.write_text(images.DIGESTS.read_text())
    monkeypatch.setattr(images, "DIGESTS", digests)
    monkeypatch.setattr(images, "pushed", lambda name, there: pushed(address, name)[1])  # an engine's work
    monkeypatch.setattr(images, "_docker", lambda *arguments: (0, "sha256:id"))
    listed, signature = sbom.paths("predictor")
    listed.parent.mkdir(parents=True)
    listed.write_text(json.dumps(sbom.document("predictor", "sha256:id", "pypi xgboost 3.2.0\n")))
    signature.write_text(signing.sign(listed.parent).bundle)
    for _ in range(2):
        digest = images.push(f"{address}/plumbline", ("predictor",))["predictor"]
    repository = Repository(f"{address}/plumbline/predictor")
    assert refusal(guarded, (repository.image, digest)) is None
    assert len(image_signatures._layers(repository, digest)) == 1, "pushed twice, it is signed once"
    index = json.loads(repository.manifest(digest.replace(":", "-")) or b"")
    (artifact,) = index["manifests"]
    assert artifact["artifactType"] == image_signatures.LIST
    made = json.loads(repository.manifest(artifact["digest"]) or b"")
    assert made["subject"]["digest"] == digest
    assert repository.blob(made["layers"][0]["digest"]) == listed.read_bytes()
    assert repository.blob(made["layers"][1]["digest"]) == signature.read_bytes()
