"""The gate `near_duplicates`: no picture to test with looks like one to train on.

Cleaning grouped near duplicates by correlations of grays and edges. Here all pairs across the split are compared by
their hashes, and the pixels of close ones by how far apart they are, level by level, beside how far each is from a
plain picture. One that looks like another (two ones among digits) may be honest, so a small share is believed; a group
on two sides is not.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from plumbline.errors import PlumblineError
from plumbline.state import objects
from validation.images import tables
from validation.leakage_findings import Audited, Finding, counted, keys_of

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

AT_ONCE = 2_000
SIDE = 32


def findings(audited: Audited, limits: dict[str, float]) -> list[Finding]:
    """Groups that are on two sides, and pictures to test with that look like one to train on."""
    rows = audited.rows
    clean = tables.read(audited, "clean_version", ["image_id", "group_id", "perceptual_hash", "clean_uri"])
    own = rows.assign(image=tables.base(rows["image_id"])).merge(
        clean.rename(columns={"image_id": "image", "group_id": "of_cleaning"}), on="image", how="left"
    )
    sides = own.groupby("of_cleaning")["split"].transform("nunique")
    told = "are of a group of near duplicates that is on more than one side of the split"
    return [counted("groups", own[sides > 1], limits["rows"], told), _lookalikes(own, limits)]


def _lookalikes(rows: pd.DataFrame, limits: dict[str, float]) -> Finding:
    known = rows.dropna(subset=["perceptual_hash", "clean_uri"])
    test, train = known[known["split"] == "test"], known[known["split"] == "train"]
    alike = _alike(test, train, limits)
    share = round(float(alike.mean()), 6) if len(alike) else 0.0
    wrong, limit = test[alike], limits["lookalike_share"]
    told = f"{share:.1%} of the images to test with look like one to train on, {limit:.0%} is believed"
    failed = share > limit
    keys = keys_of(wrong) if failed else []
    return Finding("lookalikes", failed, told + (f", such as {'; '.join(keys)}" if keys else ""), share, limit,
                   len(wrong), keys)  # fmt: skip


def _alike(test: pd.DataFrame, train: pd.DataFrame, limits: dict[str, float]) -> NDArray[Any]:
    """Which pictures to test with have one to train on that is close by hash and by pixels."""
    import numpy as np

    asked, known = (_hashes(side["perceptual_hash"]) for side in (test, train))
    uris, others = test["clean_uri"].to_list(), train["clean_uri"].to_list()
    seen: dict[str, NDArray[Any]] = {}
    found = np.zeros(len(test), dtype=bool)
    for start in range(0, len(asked), AT_ONCE):
        differing = np.bitwise_count(asked[start : start + AT_ONCE, None] ^ known[None, :])
        for at, other in zip(*np.nonzero(differing <= limits["bits"]), strict=True):
            if not found[start + at]:
                apart = _apart(_pixels(uris[start + at], seen), _pixels(others[other], seen))
                found[start + at] = apart <= limits["apart"]
    return found


def _apart(one: NDArray[Any], other: NDArray[Any]) -> float:
    """The mean difference of two pictures' levels, as a share of the plainer one's own mean spread about its mean.

    So a thin line on black must agree with another thin line, not with all the black around it.
    """
    import numpy as np

    spread = min(float(np.abs(levels - levels.mean()).mean()) for levels in (one, other))
    return float(np.abs(one - other).mean()) / max(spread, 1.0)


def _hashes(texts: pd.Series) -> NDArray[Any]:
    import numpy as np

    return np.array([int(text, 16) for text in texts], dtype=np.uint64)


def _pixels(uri: str, seen: dict[str, NDArray[Any]]) -> NDArray[Any]:
    """A cleaned picture as 32 x 32 RGB levels. Raises PlumblineError when it is gone or is none."""
    import numpy as np
    from PIL import Image

    if uri not in seen:
        stored = objects.read_at(uri)
        if stored is None:
            raise PlumblineError(f"{uri} is gone: a cleaned picture is never deleted; bring it back from a backup")
        with Image.open(io.BytesIO(stored.content)) as picture:
            small = picture.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
        seen[uri] = np.asarray(small, dtype=np.int16)
    return seen[uri]
