"""Another key signs: every registered version gets its signature anew, so that the old key can be retired."""

from __future__ import annotations

from typing import Any

from plumbline.product import Product
from plumbline.registry import registered_models, signing, trusted_models
from plumbline.registry.signing import Untrusted


def resign(product: Product) -> dict[str, Any]:
    """Signs a product's versions with the key that signs here now; which were, and which it had signed before.

    Raises Untrusted, after all others, naming each version that no trusted key signed; those stay as they are.
    """
    signed: list[str] = []
    before: list[str] = []
    refused: list[str] = []
    for registered in registered_models.versions(product.model):
        version = registered_models.find(product.model, registered.version)
        if version is None:
            continue
        try:
            (signed if trusted_models.sign_again(version) else before).append(registered.version)
        except Untrusted as error:
            refused.append(str(error))
    if refused:
        raise Untrusted("; ".join(refused))
    return {
        "message": f"{len(signed)} versions signed anew, {len(before)} were already",
        "signed_by": signing.signer(),
        "signed": signed,
        "before": before,
    }
