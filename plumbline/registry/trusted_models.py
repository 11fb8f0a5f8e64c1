"""A registered model's files, fetched and verified: the one way in which a model comes into memory.

What is loaded is xgboost's own format (UBJSON) or one ONNX file. A folder that holds anything but data files of the few
kinds that such a model consists of is refused before it is signed and before it is loaded, whoever signed it: a pickle
runs code when it is read, and MLflow knows many flavors that are one.
"""

from __future__ import annotations

import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from plumbline import observed
from plumbline.errors import PlumblineError, ServiceUnavailable
from plumbline.registry import registered_models, signing
from plumbline.registry.signing import Signed, Untrusted

if TYPE_CHECKING:
    import xgboost
    from mlflow.entities.model_registry import ModelVersion

SIGNATURE, SIGNED_BY = "signature", "signed_by"
"""Tags of a version: the bundle, and the key that made it."""


@dataclass(frozen=True)
class Flavor:
    """A format that is loaded: MLflow's name of it, how its one file's name ends, and how the file begins."""

    name: str
    suffix: str
    begins: bytes

    @property
    def loader(self) -> str:
        """The module that MLflow would load it with."""
        return f"mlflow.{self.name}"


XGBOOST = Flavor("xgboost", ".ubj", b"{")
ONNX = Flavor("onnx", ".onnx", b"\x08")  # its first field, the version of the format
FLAVORS = {flavor.name: flavor for flavor in (XGBOOST, ONNX)}
MODEL_FILES = tuple(flavor.suffix for flavor in FLAVORS.values())
PYFUNC = "python_function"
KINDS = (".json", ".yaml", ".txt")
"""How the names of the other files of a model end, beside MLmodel."""

NOTE = "registered_model_meta"
"""What MLflow's client writes into each copy that it fetches; nobody reads it."""

SCHEMES = ("models", "runs", "mlflow-artifacts", "s3", "file", "")
"""Where MLflow says that files are. From an address of another kind (http://) nothing is fetched."""

MODEL_URI = "models:/"

PICKLE = b"\x80"
"""How a pickle of protocol 2 or later begins."""


@dataclass(frozen=True)
class TrustedModel:
    """A verified model; `metadata`, what its training wrote into the signed files about it, and its MLflow run.

    `content` is a booster, or the bytes of an ONNX file.
    """

    content: xgboost.Booster | bytes
    metadata: Mapping[str, str]
    run_id: str | None = None

    @property
    def booster(self) -> xgboost.Booster:
        """The booster. Raises Untrusted when the model is another than whoever asks can serve."""
        if isinstance(self.content, bytes):
            raise Untrusted("expected an xgboost model, what was signed is an ONNX model")
        return self.content

    @property
    def onnx(self) -> bytes:
        """The ONNX file's bytes. Raises Untrusted likewise."""
        if not isinstance(self.content, bytes):
            raise Untrusted("expected an ONNX model, what was signed is an xgboost model")
        return self.content


def sign(uri: str, what: str) -> tuple[Signed, bytes]:
    """Signs the files that an MLflow URI names; the signature, and the bytes of the model's file that it covers.

    Raises Untrusted when there is a file among them that is never loaded.
    """
    with _fetched(uri, what) as folder:
        data, _ = _data_file(folder, what)
        return signing.sign(folder), data.read_bytes()


def sign_again(version: ModelVersion) -> bool:
    """Signs a version that a trusted key signed with the key that signs here now; False when it is by that one already.

    Raises Untrusted when nobody who is trusted signed it: nothing changes then.
    """
    if signing.is_ours(version.tags.get(SIGNATURE, "")):
        return False
    with verified_files(version) as folder:
        note(version, signing.sign(folder))
    return True


def note(version: ModelVersion, signed: Signed) -> None:
    """Writes a signature to a version's tags; `signature` goes last: it says that this is done."""
    for name, value in ((SIGNED_BY, signed.by), (SIGNATURE, signed.bundle)):
        registered_models.client().set_model_version_tag(version.name, version.version, name, value)


def stored(uri: str, what: str) -> bytes:
    """The model's file as MLflow holds it now, neither verified nor parsed. Raises Untrusted as `sign` does."""
    with _fetched(uri, what) as folder:
        return _data_file(folder, what)[0].read_bytes()


def load(version: ModelVersion) -> TrustedModel:
    """A registered version's model; a booster works with one thread.

    Raises Untrusted, naming the file, when it must not be loaded: also when the row and the signed files are not of one
    model and run. Raises ServiceUnavailable when whoever holds the files does not answer.
    """
    what = f"{version.name} version {version.version}"
    with _fetched(version.source, what) as folder:
        trusted = _verified(folder, version.tags.get(SIGNATURE), what, version)
    observed.read(f"models.{version.name}", version.version)
    return trusted


def load_folder(folder: Path, bundle: str | None, what: str) -> TrustedModel:
    """The model of a folder that somebody else filled, as KServe's storage initializer does; `what` names the model.

    Raises Untrusted, naming the file, unless `bundle` signs exactly what is in it.
    """
    if not folder.is_dir():
        raise Untrusted(f"{what}: {folder} is no folder; expected the files that were signed")
    with tempfile.TemporaryDirectory(prefix="plumbline-model-") as place:
        _only_files(folder, what)
        copy = Path(place) / "model"
        try:
            shutil.copytree(folder, copy, symlinks=True)
        except OSError as error:
            raise _unfetched(what, str(folder), error) from None
        return _verified(copy, bundle, what)


def verify(version: ModelVersion) -> None:
    """Raises Untrusted, naming the file, when a registered version must not be loaded; nothing of it is parsed."""
    with verified_files(version):
        pass


@contextmanager
def verified_files(version: ModelVersion) -> Iterator[Path]:
    """A private copy of a registered version's files, for whoever brings them elsewhere. Raises as `verify` does."""
    what = f"{version.name} version {version.version}"
    with _fetched(version.source, what) as folder:
        _only_data(folder, what)
        signing.verify(folder, version.tags.get(SIGNATURE), what)
        _bound(version, folder, what)
        _data_file(folder, what)
        yield folder


def _verified(folder: Path, bundle: str | None, what: str, row: ModelVersion | None = None) -> TrustedModel:
    """The model in a private copy of the files, which are those of the registry's row where there is one."""
    _only_data(folder, what)
    signing.verify(folder, bundle, what)
    if row is not None:
        _bound(row, folder, what)
    (data, flavor), described = _data_file(folder, what), _described(folder)
    content = _booster(data) if flavor is XGBOOST else _alone(data, what)
    metadata: dict[str, Any] = described.get("metadata") or {}
    return TrustedModel(content, {str(name): str(value) for name, value in metadata.items()}, described.get("run_id"))


def _booster(data: Path) -> xgboost.Booster:
    from xgboost.core import Booster  # not `xgboost`, which imports far more: see serving.server

    booster = Booster({"nthread": 1})  # two OpenMP threads on a busy machine are slower than one
    booster.load_model(data)
    booster.set_param({"nthread": 1})
    return booster


def _alone(data: Path, what: str) -> bytes:
    """An ONNX file's bytes. Raises Untrusted when it names other files, which nobody signed, or cannot be read."""
    import onnx
    from google.protobuf.message import DecodeError

    content = data.read_bytes()
    try:
        model = onnx.load_model_from_string(content)
        onnx.checker.check_model(model)
    except (DecodeError, onnx.checker.ValidationError) as error:
        raise Untrusted(f"{what}: {data.name} is no ONNX model ({type(error).__name__}); it is not loaded") from None
    given = (attribute.t for node in model.graph.node for attribute in node.attribute)
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in (*model.graph.initializer, *given)):
        raise Untrusted(f"{what}: {data.name} keeps weights in other files, expected all in one; it is not loaded")
    return content


def _bound(version: ModelVersion, folder: Path, what: str) -> None:
    """Raises Untrusted unless row and verified files name one model and run, which no earlier version has."""
    described, run = _described(folder), version.run_id or version.tags.get("run_id")
    rows = {"the run in the registry": version.run_id, "its tag run_id": version.tags.get("run_id")}
    for name, value in rows.items():
        if value and value != described.get("run_id"):
            raise Untrusted(f"{what}: {name} is {value}, its MLmodel is of {described.get('run_id')}; it is not loaded")
    if not run:
        raise Untrusted(f"{what} names no run: `plumb register` does; it is not loaded")
    if version.source.startswith(MODEL_URI) and version.source.removeprefix(MODEL_URI) != described.get("model_id"):
        signed = described.get("model_id")
        raise Untrusted(f"{what}: its source is {version.source}, its MLmodel is of {signed}; it is not loaded")
    same = registered_models.client().search_model_versions(f"name = '{version.name}' and run_id = '{run}'")
    if first := min((int(other.version) for other in same if int(other.version) < int(version.version)), default=None):
        raise Untrusted(f"{what} is of run {run}, as version {first} is: a run is registered once; it is not loaded")


@contextmanager
def _fetched(uri: str, what: str) -> Iterator[Path]:
    """A private copy of the files, so that what is verified is what is read. Raises Untrusted for what is no files."""
    from botocore.exceptions import BotoCoreError, ClientError
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    if urlsplit(uri).scheme not in SCHEMES:
        raise Untrusted(f"{what}: its source {uri!r} is none that MLflow gave it; it is not loaded")
    with tempfile.TemporaryDirectory(prefix="plumbline-model-") as place:
        try:
            store = get_artifact_repository(uri)
            while hasattr(store, "repo"):  # a model's or a run's files are in another store
                store = store.repo
            if (local := getattr(store, "artifact_dir", None)) is not None:
                _only_files(Path(local), what)
            folder = Path(download_artifacts(uri, dst_path=place))
            (folder / NOTE).unlink(missing_ok=True)
        except (MlflowException, OSError, ValueError, BotoCoreError, ClientError) as error:
            raise _unfetched(what, uri, error) from None
        yield folder


def _unfetched(what: str, source: str, error: Exception) -> PlumblineError:
    """What to raise for files that cannot be fetched: Untrusted, unless it is the server that does not answer."""
    import requests
    from botocore.exceptions import ConnectionError as LostBucket
    from botocore.exceptions import HTTPClientError

    unreachable = (ConnectionError, TimeoutError, requests.ConnectionError, requests.Timeout)
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, (*unreachable, LostBucket, HTTPClientError)):
            return ServiceUnavailable(
                f"{what}: the store of its files does not answer ({type(cause).__name__}): try again"
            )
        cause = cause.__cause__ or cause.__context__
    return Untrusted(
        f"{what}: its files in {source} cannot be fetched ({type(error).__name__}); it is not loaded. "
        "`plumb deploy --model previous` goes back; `plumb train` and `plumb register` make another"
    )


def _only_files(folder: Path, what: str) -> None:
    """Raises Untrusted for what is neither file nor folder, before it is opened: a pipe or a device never ends."""
    if not folder.is_dir() or folder.is_symlink():
        raise Untrusted(f"{what}: {folder} is no folder; expected the files that were signed; it is not loaded")
    for path in sorted(folder.rglob("*")):
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode):
            raise Untrusted(f"{what} holds a symbolic link: {path.relative_to(folder)}; it is not loaded")
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            raise Untrusted(f"{what} holds {path.relative_to(folder)}, which is no file; it is not loaded")


def _only_data(folder: Path, what: str) -> None:
    """Raises Untrusted for a file that is not of a kind such a model consists of, by its name or how it begins."""
    for path in sorted(folder.rglob("*")):
        if path.is_dir() and not path.is_symlink():
            continue
        name = path.relative_to(folder)
        known = path.suffix in (*KINDS, *MODEL_FILES) or str(name) == "MLmodel"
        if path.is_symlink() or not known or path.read_bytes()[:1] == PICKLE:
            raise Untrusted(
                f"{what} holds {name}, which is no data file of an xgboost or ONNX model (MLmodel, .ubj, .onnx, "
                f"{', '.join(KINDS)}): nothing of it is loaded. Find out who put it there, then train and register anew"
            )


def _data_file(folder: Path, what: str) -> tuple[Path, Flavor]:
    """The model's file and its format. Raises Untrusted unless MLmodel says that it is of one we load, and no other.

    Of all files in the folder only this one is of such a format.
    """
    _only_data(folder, what)
    flavors: dict[str, Any] = _described(folder).get("flavors") or {}
    known = [flavor for name, flavor in FLAVORS.items() if name in flavors]
    other = sorted(set(flavors) - {*FLAVORS, PYFUNC})
    loader = flavors.get(PYFUNC, {}).get("loader_module")
    if len(known) != 1 or other or loader not in (None, known[0].loader):
        told = ", ".join(other or sorted(flavors)) if other or len(known) != 1 else f"loader {loader}"
        raise Untrusted(
            f"{what}: expected an xgboost or an ONNX model, MLmodel says {told or 'nothing'}; nothing of it is loaded"
        )
    (flavor,) = known
    name = str(flavors[flavor.name].get("data"))
    path = folder / name
    begins = path.is_file() and path.read_bytes()[: len(flavor.begins)] == flavor.begins
    if Path(name).name != name or path.suffix != flavor.suffix or not begins:
        raise Untrusted(
            f"{what}: MLmodel names {name!r} as the model, expected a file in {flavor.name}'s format beside it"
        )
    others = [p.name for p in folder.rglob("*") if p != path and p.suffix in MODEL_FILES]
    if others:
        raise Untrusted(f"{what} holds {', '.join(others)} beside {name}, expected one model; nothing of it is loaded")
    return path, flavor


def _described(folder: Path) -> dict[str, Any]:
    import yaml

    try:
        found = yaml.safe_load((folder / "MLmodel").read_text()) if (folder / "MLmodel").is_file() else None
    except (yaml.YAMLError, UnicodeDecodeError):
        return {}
    return found if isinstance(found, dict) else {}
