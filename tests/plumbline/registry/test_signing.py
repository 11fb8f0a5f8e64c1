"""Signatures over a folder of files: whatever is done to it afterwards is told, with the file's name. No network."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization as s
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from plumbline.errors import SettingsError
from plumbline.registry import signing
from plumbline.registry.signing import Untrusted
from plumbline.settings import settings

FILES = {"MLmodel": b"flavors: {}\n", "model.ubj": b"{" + bytes(range(200)), "requirements.txt": b"mlflow==3\n"}


@pytest.fixture
def folder(home: Path, tmp_path: Path) -> Path:
    return write(tmp_path / "model")


def write(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    return folder


def keys(curve: ec.EllipticCurve | None = None) -> tuple[str, str]:
    made = ec.generate_private_key(curve or ec.SECP384R1())
    private = made.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption())
    public = made.public_key().public_bytes(s.Encoding.PEM, s.PublicFormat.SubjectPublicKeyInfo)
    return private.decode(), public.decode()


def use(monkeypatch: pytest.MonkeyPatch, **given: str) -> None:
    for name, value in given.items():
        monkeypatch.setenv(f"PLUMBLINE_{name.upper()}", value)
    settings.cache_clear()


def test_what_was_signed_is_trusted_wherever_it_lies_and_nothing_calls_out(
    folder: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("a network call"))
    made = signing.sign(folder)
    assert made.by.startswith("this home's demo key ")
    signing.verify(folder.rename(tmp_path / "elsewhere"), made.bundle, "it")
    private = home / "keys" / "demo-signing.pem"
    assert private.stat().st_mode & 0o777 == 0o600
    assert private.parent.stat().st_mode & 0o777 == 0o700
    assert signing.sign(tmp_path / "elsewhere").by == made.by, "the same key again"


@given(name=st.sampled_from(sorted(FILES)), at=st.integers(0, 10_000), flipped=st.integers(1, 255), cut=st.booleans())
@examples(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_changed_byte_and_any_cut_is_told_with_its_file(
    folder: Path, name: str, at: int, flipped: int, cut: bool
) -> None:
    made = signing.sign(write(folder))
    content = bytearray(FILES[name])
    if cut:
        del content[at % len(content) :]
    else:
        content[at % len(content)] ^= flipped
    (folder / name).write_bytes(content)
    with pytest.raises(Untrusted, match=f"^it after it was signed was altered in {name}; it is not loaded"):
        signing.verify(folder, made.bundle, "it")


@pytest.mark.parametrize("extra", ["model.pkl", ".gitignore", "deep/er.txt"])
def test_files_that_came_or_went_are_told(folder: Path, extra: str) -> None:
    made = signing.sign(folder)
    (folder / extra).parent.mkdir(exist_ok=True)
    (folder / extra).write_text("x")
    (folder / "requirements.txt").unlink()
    with pytest.raises(Untrusted, match=f"was given {extra} and lacks requirements.txt"):
        signing.verify(folder, made.bundle, "it")


def test_a_link_out_of_the_folder_is_not_signed_over(folder: Path, tmp_path: Path) -> None:
    made = signing.sign(folder)
    (tmp_path / "else").write_bytes(FILES["model.ubj"])
    (folder / "model.ubj").unlink()
    (folder / "model.ubj").symlink_to(tmp_path / "else")
    with pytest.raises(Untrusted, match="symbolic link"):
        signing.verify(folder, made.bundle, "it")


def test_only_the_trusted_key_counts(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    demo = signing.sign(folder)
    private, public = keys()
    use(monkeypatch, signing_key=private)
    ours = signing.sign(folder)
    assert ours.by.startswith("key ")
    signing.verify(folder, ours.bundle, "it")
    with pytest.raises(Untrusted, match="signed by another key than the trusted"):
        signing.verify(folder, demo.bundle, "it")
    # A predictor has the public half alone, as a file or as text.
    monkeypatch.delenv("PLUMBLINE_SIGNING_KEY")
    (tmp_path / "verify.pem").write_text(public)
    for given_key in (public, str(tmp_path / "verify.pem")):
        use(monkeypatch, verify_key=given_key)
        signing.verify(folder, ours.bundle, "it")
    # A bundle that claims the trusted key's name and carries another's signature.
    theirs = json.loads(demo.bundle)
    theirs["verificationMaterial"] = json.loads(ours.bundle)["verificationMaterial"]
    with pytest.raises(Untrusted, match="its signature is not by key"):
        signing.verify(folder, json.dumps(theirs), "it")


@pytest.mark.parametrize("bundle", ["{}", "[]", "null", "not json", '{"verificationMaterial": {}}', '"text"'])
def test_what_is_no_bundle_is_refused(folder: Path, bundle: str) -> None:
    signing.sign(folder)
    with pytest.raises(Untrusted, match="has a signature that cannot be read"):
        signing.verify(folder, bundle, "it")


def test_nothing_signed_and_nothing_to_verify_with(folder: Path) -> None:
    with pytest.raises(Untrusted, match="^it is not signed: `plumb register` signs"):
        signing.verify(folder, None, "it")
    with pytest.raises(Untrusted, match="no key to verify models with: set PLUMBLINE_VERIFY_KEY"):
        signing.verify(folder, "{}", "it")


def test_keys_that_cannot_be_used_are_named_and_not_shown(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = rsa.generate_private_key(65537, 2048).private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption())
    for wrong in (other.decode(), keys(ec.SECP256K1())[0], "-----BEGIN of nothing that is a key at all", keys()[1]):
        use(monkeypatch, signing_key=wrong)
        with pytest.raises(SettingsError, match="PLUMBLINE_SIGNING_KEY: expected a private elliptic-curve key") as told:
            signing.sign(folder)
        assert wrong[30:60] not in str(told.value)
    use(monkeypatch, signing_key=str(tmp_path / "nowhere.pem"))
    with pytest.raises(SettingsError, match=r"PLUMBLINE_SIGNING_KEY: .* No such file"):
        signing.sign(folder)
    monkeypatch.delenv("PLUMBLINE_SIGNING_KEY")
    use(monkeypatch, verify_key=keys()[0])
    with pytest.raises(SettingsError, match="PLUMBLINE_VERIFY_KEY: expected a public elliptic-curve key"):
        signing.verify(folder, "{}", "it")


def test_while_a_key_is_changed_for_another_both_are_trusted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (old, old_public), (new, new_public), (_, third) = keys(), keys(ec.SECP256R1()), keys()
    use(monkeypatch, signing_key=old)
    before = signing.sign(folder)
    use(monkeypatch, signing_key=new, verify_key=new_public + old_public)
    signing.verify(folder, before.bundle, "it")
    after = signing.sign(folder)
    signing.verify(folder, after.bundle, "it")
    use(monkeypatch, verify_key=new_public)
    with pytest.raises(Untrusted, match="is signed by another key than the trusted"):
        signing.verify(folder, before.bundle, "it")
    use(monkeypatch, verify_key=third + new_public.replace("\n", "\\n"))
    signing.verify(folder, after.bundle, "it")
    (folder / "MLmodel").write_bytes(b"altered")
    with pytest.raises(Untrusted, match="was altered in MLmodel"):
        signing.verify(folder, after.bundle, "it")
    use(monkeypatch, verify_key=new_public + "what is no key")
    with pytest.raises(SettingsError, match="PLUMBLINE_VERIFY_KEY: expected a public elliptic-curve key"):
        signing.verify(folder, after.bundle, "it")
