"""How a picture is named: its id, and its keys in the buckets, which stay when a bucket moves to another place."""

from __future__ import annotations

from collections.abc import Iterable

from plumbline.errors import PlumblineError

ID_DIGITS = 32


class UnknownImage(PlumblineError):
    """No image, or several, have an id that begins so."""


def named(beginning: str, ids: Iterable[str], where: str) -> str:
    """The one image id that begins so. Raises UnknownImage, which says of which images `where` there is none."""
    those = sorted(image for image in ids if image.startswith(beginning))
    if not those:
        raise UnknownImage(f"{where} has no image whose id begins with {beginning!r}")
    if len(those) > 1:
        raise UnknownImage(
            f"{len(those)} images begin with {beginning!r}, such as {', '.join(those[:3])}: give more of the id"
        )
    return those[0]


def image_id(sha256: str) -> str:
    """The stable name of a picture: the first 32 hex digits of its bytes' sha256."""
    return sha256[:ID_DIGITS]


def raw_key(uri: str) -> str:
    """The key in the raw bucket, of an address that raw.images holds."""
    return _last(uri, 2)


def clean_key(uri: str) -> str:
    """The key in the clean bucket, of an address that clean.images or an embedding holds."""
    return _last(uri, 3)


def _last(uri: str, parts: int) -> str:
    return "/".join(uri.rsplit("/", parts)[1:])
