"""A registered model's files, fetched and verified: the one way in which a model comes into memory.

What is loaded is xgboost's own format (UBJSON). A folder that holds anything but data files of the few kinds that such
a model consists of is refused before it is signed and before it is loaded, whoever signed it: a pickle runs code when
it is read, and MLflow knows many flavors that are one.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plumbline import observed
from plumbline.registry import signing
from plumbline.registry.signing import Signed, Untrusted

if TYPE_CHECKING:
    import xgboost
    from mlflow.entities.model_registry import ModelVersion

SIGNATURE, SIGNED_BY = "signature", "signed_by"
"""Tags of a version: the bundle, and the key that made it."""

KINDS = (".ubj", ".json", ".yaml", ".txt")
FLAVORS = ("xgboost", "python_function")
LOADER = "mlflow.xgboost"
NOTE = "registered_model_meta"
"""What MLflow's client writes into each copy that it fetches; nobody reads it."""

UBJSON, PICKLE = b"{", b"\x80"
"""How a file of each begins (a pickle of protocol 2 or later)."""


@dataclass(frozen=True)
class TrustedModel:
    """A verified booster; `metadata`, what its training wrote into the signed files about it, and its MLflow run."""

    booster: xgboost.Booster
    metadata: Mapping[str, str]
    run_id: str | None = None


def sign(uri: str, what: str) -> tuple[Signed, bytes]:
    """Signs the files that an MLflow URI names; the signature, and the booster's bytes that it covers.

    Raises Untrusted when there is a file among them that is never loaded.
    """
    with _fetched(uri) as folder:
        data = _data_file(folder, what)
        return signing.sign(folder), data.read_bytes()


def stored(uri: str, what: str) -> bytes:
    """The booster's bytes as MLflow holds them now, neither verified nor parsed. Raises Untrusted as `sign` does."""
    with _fetched(uri) as folder:
        return _data_file(folder, what).read_bytes()


def load(version: ModelVersion) -> TrustedModel:
    """A registered version's booster, one thread. Raises Untrusted, naming the file, when it must not be loaded."""
    with _fetched(version.source) as folder:
        found = _verified(folder, version.tags.get(SIGNATURE), f"{version.name} version {version.version}")
    observed.read(f"models.{version.name}", version.version)
    return found


def load_folder(folder: Path, bundle: str | None, what: str) -> TrustedModel:
    """The booster of a folder that somebody else filled, as KServe's storage initializer does; `what` names the model.

    Raises Untrusted, naming the file, unless `bundle` signs exactly what is in it.
    """
    if not folder.is_dir():
        raise Untrusted(f"{what}: {folder} is no folder; expected the files that were signed")
    with tempfile.TemporaryDirectory(prefix="plumbline-model-") as place:
        copy = Path(place) / "model"
        shutil.copytree(folder, copy, symlinks=True)
        return _verified(copy, bundle, what)


def verify(version: ModelVersion) -> None:
    """Raises Untrusted, naming the file, when a registered version must not be loaded; nothing of it is parsed."""
    what = f"{version.name} version {version.version}"
    with _fetched(version.source) as folder:
        _only_data(folder, what)
        signing.verify(folder, version.tags.get(SIGNATURE), what)
        _data_file(folder, what)


def _verified(folder: Path, bundle: str | None, what: str) -> TrustedModel:
    """The booster of a private copy of the files."""
    import xgboost

    _only_data(folder, what)
    signing.verify(folder, bundle, what)
    data, told = _data_file(folder, what), _described(folder)
    booster = xgboost.Booster({"nthread": 1})  # two OpenMP threads on a busy machine are slower than one
    booster.load_model(data)
    booster.set_param({"nthread": 1})
    metadata: dict[str, Any] = told.get("metadata") or {}
    return TrustedModel(booster, {str(name): str(value) for name, value in metadata.items()}, told.get("run_id"))


@contextmanager
def _fetched(uri: str) -> Iterator[Path]:
    """A private copy of the files, so that what is verified is what is read."""
    import mlflow.artifacts

    with tempfile.TemporaryDirectory(prefix="plumbline-model-") as place:
        folder = Path(mlflow.artifacts.download_artifacts(uri, dst_path=place))
        (folder / NOTE).unlink(missing_ok=True)
        yield folder


def _only_data(folder: Path, what: str) -> None:
    """Raises Untrusted for a file that is not of a kind such a model consists of, by its name or how it begins."""
    for path in sorted(folder.rglob("*")):
        if path.is_dir() and not path.is_symlink():
            continue
        name = path.relative_to(folder)
        known = path.suffix in KINDS or str(name) == "MLmodel"
        if path.is_symlink() or not known or path.read_bytes()[:1] == PICKLE:
            raise Untrusted(
                f"{what} holds {name}, which is no data file of an xgboost model (MLmodel, {', '.join(KINDS)}): "
                "nothing of it is loaded. Find out who put it there, then train and register anew"
            )


def _data_file(folder: Path, what: str) -> Path:
    """The booster's file. Raises Untrusted when the model says that it is anything but xgboost's UBJSON."""
    _only_data(folder, what)
    flavors: dict[str, Any] = _described(folder).get("flavors") or {}
    other = sorted(set(flavors) - set(FLAVORS))
    loader = flavors.get("python_function", {}).get("loader_module", LOADER)
    if "xgboost" not in flavors or other or loader != LOADER:
        told = ", ".join(other) or f"loader {loader}"
        raise Untrusted(f"{what}: expected an xgboost model, MLmodel says {told}; nothing of it is loaded")
    name = str(flavors["xgboost"].get("data"))
    path = folder / name
    if Path(name).name != name or path.suffix != ".ubj" or not path.is_file() or path.read_bytes()[:1] != UBJSON:
        raise Untrusted(f"{what}: MLmodel names {name!r} as the booster, expected a file in UBJSON beside it")
    return path


def _described(folder: Path) -> dict[str, Any]:
    import yaml

    try:
        found = yaml.safe_load((folder / "MLmodel").read_text()) if (folder / "MLmodel").is_file() else None
    except (yaml.YAMLError, UnicodeDecodeError):
        return {}
    return found if isinstance(found, dict) else {}
