"""Signatures over a model's files: made when it is registered, verified before a byte of them is parsed.

OpenSSF model-signing with an elliptic-curve key (P-256, P-384 or P-521): a manifest of every file with its SHA-256, in
a Sigstore bundle. Keys alone: nothing of it calls a server. Without a key in the settings a home makes a demo key for
itself, which proves that files are those that were signed here, and nothing about who did.
"""

from __future__ import annotations

import base64
import binascii
import gzip
import json
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from plumbline import files
from plumbline.errors import GateFailed, SettingsError
from plumbline.settings import settings

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey

GATE = "model_signature"
"""The gate's name in the ledger."""

CURVES = ("secp256r1", "secp384r1", "secp521r1")
SIGNING, VERIFY = "PLUMBLINE_SIGNING_KEY", "PLUMBLINE_VERIFY_KEY"
END = b"-----END PUBLIC KEY-----"
"""How a public key's PEM ends."""

DEMO_KEY = "this home's demo key"
"""How `Signed.by` begins when no key was set."""


class Untrusted(GateFailed):
    """A model's files are not those that the key's holder signed, or are of a kind that is never loaded."""

    exit_code: ClassVar[int] = 3


@dataclass(frozen=True)
class Signed:
    """A signature and who made it: `bundle` is Sigstore's JSON, `by` names the key by the start of its SHA-256."""

    bundle: str
    by: str


def sign(folder: Path) -> Signed:
    """Signs every file under `folder`. Raises SettingsError when the key in the settings cannot be used."""
    from model_signing import signing

    private, _ = _private_key()
    with _as_file(_private_pem(private)) as key, tempfile.TemporaryDirectory() as place:
        bundle = Path(place) / "bundle"
        config = signing.Config().use_elliptic_key_signer(private_key=key).set_hashing_config(_every_file())
        config.sign(folder, bundle)
        return Signed(bundle.read_text(), signer())


def verify(folder: Path, bundle: str | None, what: str) -> None:
    """Raises Untrusted, naming the file, unless `bundle` signs exactly the files under `folder` with a trusted key.

    `what` names the model in the message. Raises SettingsError when there is no usable key to verify with.
    """
    if not bundle:
        raise Untrusted(f"{what} is not signed: `plumb register` signs what this platform trained; it is not loaded")
    from cryptography.exceptions import InvalidSignature
    from model_signing import verifying

    public = _signer_among(_public_keys(), bundle)
    with _as_file(_public_pem(public)) as key, _as_file(bundle.encode()) as signature:
        config = verifying.Config().use_elliptic_key_verifier(public_key=key).set_hashing_config(_every_file())
        try:
            config.verify(folder, signature)
        except InvalidSignature:
            raise Untrusted(f"{what}: its signature is not by key {fingerprint(public)}; it is not loaded") from None
        # A bundle that is no bundle fails wherever model-signing or the JSON reader first trips over it.
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise Untrusted(f"{what} {_told(error, fingerprint(public), folder, bundle)}; it is not loaded") from None


def signature(content: bytes) -> bytes:
    """What the key in the settings makes of any content: ECDSA over its SHA-256, in DER. Raises SettingsError."""
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.hashes import SHA256

    return _private_key()[0].sign(content, ec.ECDSA(SHA256()))


def is_signature(given: bytes, content: bytes) -> bool:
    """Whether a trusted key made `given` of that content. Raises SettingsError where no usable key is set."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.hashes import SHA256

    for public in _public_keys():
        with suppress(InvalidSignature):
            public.verify(given, content, ec.ECDSA(SHA256()))
            return True
    return False


def _signer_among(trusted: list[EllipticCurvePublicKey], bundle: str) -> EllipticCurvePublicKey:
    """The trusted key that a bundle says it was signed with, else the first: what it says is verified after."""
    said = _said(bundle)
    return next((key for key in trusted if files.sha256(_public_pem(key)) == said), trusted[0])


def _said(bundle: str) -> str | None:
    """The SHA-256 of the key that a bundle says it was made with; None when it does not."""
    try:
        return str(json.loads(bundle)["verificationMaterial"]["publicKey"]["hint"])
    except (ValueError, KeyError, TypeError):
        return None


def digest(bundle: str) -> str:
    """`sha256:…` over the digests of all files that a bundle signs: what a deployment names a model's files by."""
    payload = json.loads(base64.b64decode(json.loads(bundle)["dsseEnvelope"]["payload"]))
    return f"sha256:{payload['subject'][0]['digest']['sha256']}"


def packed(bundle: str) -> str:
    """A bundle as one line of text, for an annotation or an environment variable: gzip in base64."""
    return base64.b64encode(gzip.compress(bundle.encode(), mtime=0)).decode()


def unpacked(text: str, what: str) -> str:
    """The bundle that `packed` made a text of. Raises Untrusted when it is none; `what` names the model."""
    try:
        return gzip.decompress(base64.b64decode(text, validate=True)).decode()
    except (binascii.Error, OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        told = f"has a signature that cannot be read ({type(error).__name__})"
        raise Untrusted(f"{what} {told}: expected what `plumb promote` writes; it is not loaded") from None


def signer() -> str:
    """Who signs here now, as `Signed.by` names them; a version signed by another key is signed anew by `register`."""
    private, label = _private_key()
    return f"{label} {fingerprint(private.public_key())}"


def is_ours(bundle: str) -> bool:
    """Whether a bundle says that the key that signs here now made it."""
    return _said(bundle) == files.sha256(_public_pem(_private_key()[0].public_key()))


def fingerprint(public: EllipticCurvePublicKey) -> str:
    """The first 12 hex digits of the SHA-256 of the public key's PEM, which is what a bundle calls it by."""
    return files.sha256(_public_pem(public))[:12]


def _told(error: Exception, trusted: str, folder: Path, bundle: str) -> str:
    if "Key mismatch" in str(error):
        return f"is signed by another key than the trusted {trusted}"
    if "ymlink" in str(error):
        return f"holds a symbolic link: {error}"
    if not str(error).startswith("Signature mismatch"):
        return f"has a signature that cannot be read ({type(error).__name__})"
    payload = json.loads(base64.b64decode(json.loads(bundle)["dsseEnvelope"]["payload"]))
    signed = {item["name"]: item["digest"] for item in payload["predicate"]["resources"]}
    held = {str(p.relative_to(folder)): files.sha256(p.read_bytes()) for p in folder.rglob("*") if p.is_file()}
    kinds = {
        "was altered in": [name for name in signed if name in held and held[name] != signed[name]],
        "was given": sorted(set(held) - set(signed)),
        "lacks": sorted(set(signed) - set(held)),
    }
    return "after it was signed " + " and ".join(f"{kind} {', '.join(names)}" for kind, names in kinds.items() if names)


def _every_file() -> Any:
    """Hashing that leaves nothing out: model-signing would ignore what git keeps."""
    from model_signing import hashing

    return hashing.Config().use_file_serialization().set_ignored_paths(paths=[], ignore_git_paths=False)


def _private_key() -> tuple[EllipticCurvePrivateKey, str]:
    given = settings().signing_key
    if given is not None:
        return _load_private(_pem(given.get_secret_value(), SIGNING), SIGNING), "key"
    path = _demo("signing")
    with files.locked(path.with_suffix(".lock"), wait=True):
        if not path.exists():
            _make_demo_key(path)
    return _load_private(path.read_bytes(), str(path)), DEMO_KEY


def _public_keys() -> list[EllipticCurvePublicKey]:
    """The keys that models may be signed with: the setting's, one or several while a key is changed for another; else
    the signing key's own half, else the demo key's."""
    given = settings().verify_key
    if given is None and settings().signing_key is not None:
        return [_private_key()[0].public_key()]
    where = VERIFY if given is not None else str(_demo("verify"))
    if given is None and not _demo("verify").exists():
        raise Untrusted(
            f"no key to verify models with: set {VERIFY} to the public key (PEM, a path or the text); on a laptop "
            f"`plumb register` makes a demo key under {_demo('verify').parent}"
        )
    pem = _pem(given, VERIFY) if given is not None else _demo("verify").read_bytes()
    return [_load_public(part, where) for part in pem.split(END) if part.strip()] or [_load_public(pem, where)]


def _load_public(pem: bytes, where: str) -> EllipticCurvePublicKey:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    try:
        found = serialization.load_pem_public_key(pem + END)
    except ValueError:
        found = None
    if not isinstance(found, ec.EllipticCurvePublicKey) or found.curve.name not in CURVES:
        raise SettingsError(f"{where}: expected a public elliptic-curve key in PEM on one of {', '.join(CURVES)}")
    return found


def _load_private(pem: bytes, where: str) -> EllipticCurvePrivateKey:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    try:
        found = serialization.load_pem_private_key(pem, None)
    except (ValueError, TypeError):  # TypeError: it is encrypted
        found = None
    if not isinstance(found, ec.EllipticCurvePrivateKey) or found.curve.name not in CURVES:
        raise SettingsError(
            f"{where}: expected a private elliptic-curve key in PEM, without a password, on one of {', '.join(CURVES)}"
        )
    return found


def _pem(given: str, setting: str) -> bytes:
    """A key's PEM from what a setting holds: the text itself, or the path of its file."""
    if given.lstrip().startswith("-----BEGIN"):
        return given.replace("\\n", "\n").encode()
    try:
        return Path(given).expanduser().read_bytes()
    except OSError as error:
        raise SettingsError(f"{setting}: expected a PEM file or its text; the file gives: {error.strerror}") from None


def _make_demo_key(path: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric import ec

    made = ec.generate_private_key(ec.SECP256R1())
    path.parent.chmod(0o700)
    files.write_whole(_demo("verify"), _public_pem(made.public_key()).decode())
    # The private half goes last: while it is not there, a killed command's public half is made anew.
    files.write_whole(path, _private_pem(made).decode(), mode=0o600)


def _demo(name: str) -> Path:
    return settings().home / "keys" / f"demo-{name}.pem"


def _private_pem(key: EllipticCurvePrivateKey) -> bytes:
    from cryptography.hazmat.primitives import serialization as s

    return key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption())


def _public_pem(key: EllipticCurvePublicKey) -> bytes:
    from cryptography.hazmat.primitives import serialization as s

    return key.public_bytes(s.Encoding.PEM, s.PublicFormat.SubjectPublicKeyInfo)


@contextmanager
def _as_file(content: bytes) -> Iterator[Path]:
    """The content as a file that only this user can read, for as long as it is needed: model-signing takes paths."""
    with tempfile.NamedTemporaryFile(prefix="plumbline-") as file:
        file.write(content)
        file.flush()
        yield Path(file.name)
