"""How a picture is named: its id, and its keys in the buckets, which stay when a bucket moves to another place."""

from __future__ import annotations

ID_DIGITS = 32


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
