"""A model from a folder, as a pod gets it, where KServe's storage initializer put the files.

No registry is asked. Git says which version it is, by the pod's annotations; the rest is held against the signed files.
"""

from __future__ import annotations

from pathlib import Path

from plumbline.errors import SettingsError
from plumbline.product import Product
from plumbline.registry import signing, trusted_models
from plumbline.registry.signing import Untrusted
from plumbline.settings import settings
from serving import loaded_model as registry
from serving.loaded_model import LoadedModel


def load(product: Product, folder: Path) -> LoadedModel:
    """Loads the model in `folder` as the version in PLUMBLINE_MODEL_VERSION.

    Raises SettingsError without a version, Untrusted when there is no signature in PLUMBLINE_MODEL_SIGNATURE, its files
    are not those that it signs, or they are another digest's or run's than PLUMBLINE_MODEL_DIGEST and _RUN say.
    """
    given = settings()
    if given.model_version is None:
        raise SettingsError("PLUMBLINE_MODEL_VERSION is not set: a model in a folder does not say which version it is")
    what = f"{product.model} version {given.model_version}"
    bundle = signing.unpacked(given.model_signature, what) if given.model_signature else None
    trusted = trusted_models.load_folder(folder, bundle, what)
    signed = {"PLUMBLINE_MODEL_DIGEST": signing.digest(bundle or ""), "PLUMBLINE_MODEL_RUN": trusted.run_id}
    for name, wanted in {"PLUMBLINE_MODEL_DIGEST": given.model_digest, "PLUMBLINE_MODEL_RUN": given.model_run}.items():
        if wanted not in (None, signed[name]):
            raise Untrusted(f"{what}: {name} is {wanted}, its signed files are of {signed[name]}; it is not loaded")
    return registry.of_trusted(product, given.model_version, trusted)
