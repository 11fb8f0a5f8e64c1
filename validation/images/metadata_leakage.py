"""The gate `metadata_leakage`: nothing that came with a picture, beside its pixels, gives its label away.

A camera that took all pictures of one class is what a network learns instead of what they show: its noise, its crop,
its time stamp. The model does not see these fields; they show what else differs between the classes.
"""

from __future__ import annotations

import json
from math import sqrt
from typing import TYPE_CHECKING, Any

from validation.images import tables
from validation.leakage_findings import Audited, Finding, keys_of

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

FIELDS = ("source", "format", "landed", "size_bytes")
BINS = 16
"""Groups that a number's values are cut into."""


def findings(audited: Audited, limits: dict[str, float]) -> list[Finding]:
    """Two for each field: how well it tells the label by itself, the best first, and the purest group of its values."""
    rows = audited.rows[~audited.rows["image_id"].str.contains(tables.COPY)]
    names = ["image_id", "exif", "source", "format", "event_time", "size_bytes"]
    raw = tables.read(audited, "raw_version", names).drop_duplicates("image_id").set_index("image_id")
    own = raw.loc[[image for image in rows["image_id"] if image in raw.index]]
    rows = rows[rows["image_id"].isin(own.index)]
    columns = _columns(own)
    alone = [_alone(name, values, rows, limits) for name, values in columns.items()]
    purest = [_purest(name, values, rows, limits) for name, values in columns.items()]
    return sorted(alone, key=lambda finding: -finding.value) + purest


def _columns(raw: pd.DataFrame) -> dict[str, NDArray[Any]]:
    """Each field's value for each image as text; a number's range; what is missing is a value too."""
    import pandas as pd

    found = {"source": raw["source"], "format": raw["format"], "landed": raw["event_time"].astype(str)}
    edges = pd.qcut(raw["size_bytes"], BINS, duplicates="drop")
    found["size_bytes"] = edges.astype(str)
    exif = [json.loads(text) if text else {} for text in raw["exif"]]
    for name in sorted({name for one in exif for name in one}):
        values = pd.Series([one.get(name) for one in exif], dtype=object)
        found[f"exif {name}"] = _ranges(values)
    return {name: pd.Series(values).fillna("missing").astype(str).to_numpy() for name, values in found.items()}


def _ranges(values: pd.Series) -> pd.Series:
    """Numbers with many values as ranges of them, anything else as it is."""
    import pandas as pd

    numbers = pd.to_numeric(values, errors="coerce")
    if numbers.notna().sum() == values.notna().sum() and numbers.nunique() > BINS:
        return pd.qcut(numbers, BINS, duplicates="drop").astype(str).where(values.notna())
    return values


def _alone(name: str, values: NDArray[Any], rows: pd.DataFrame, limits: dict[str, float]) -> Finding:
    """How much of what the most frequent class gets wrong the field gets right, on images that it was not read from.

    It says for each value the class that is most frequent with it in the training rows. Chance gives 0 or less: of few
    images it could do better, so what it got right counts but for a bound of chance.
    """
    import pandas as pd

    train = (rows["split"] == "train").to_numpy()
    label = rows["label"].to_numpy()
    known = pd.DataFrame({"value": values[train], "label": label[train]})
    usual = known["label"].mode().iloc[0]
    says = known.groupby("value")["label"].agg(lambda labels: labels.mode().iloc[0])
    said = pd.Series(values[~train]).map(says).fillna(usual).to_numpy()
    base, right = float((label[~train] == usual).mean()), float((said == label[~train]).mean())
    sure = _at_least(right, len(said), limits["errors"])
    value = round((sure - base) / (1 - base), 6) if base < 1 else 0.0
    limit = limits["alone"]
    told = (
        f"{name} alone tells {right:.1%} of {len(said):,} labels, the most frequent class {base:.1%}; surely "
        f"{sure:.1%}: {value:.2f} of what is left, at most {limit} is believed"
    )
    return Finding(f"{name}: alone", value > limit, told, value, limit, len(rows))


def _at_least(share: float, rows: int, errors: float) -> float:
    """What a share seen in so many rows is at least, but for so many standard errors of chance (Wilson's bound)."""
    if not rows:
        return 0.0
    squared = errors**2 / rows
    spread = errors * sqrt((share * (1 - share) + squared / 4) / rows)
    return (share + squared / 2 - spread) / (1 + squared)


def _purest(name: str, values: NDArray[Any], rows: pd.DataFrame, limits: dict[str, float]) -> Finding:
    """The value whose images are most of one class, of values that are no ranges; all but missing is a value too."""
    limit = limits["purest"]
    least = max(limits["fewest"], limits["fewest_share"] * len(rows))
    label = rows["label"].to_numpy()
    groups = {value: values == value for value in set(values)}
    groups["given"] = values != "missing"
    usual = rows["label"].value_counts(normalize=True).iloc[0]
    pure = [
        (float(rows["label"][part].value_counts(normalize=True).iloc[0]), value, part)
        for value, part in groups.items()
        if least <= part.sum() < len(rows) and not value.startswith(("(", "["))
    ]
    if not pure:
        return Finding(f"{name}: purest value", False, f"{name}: no value of it has images enough", 0.0, limit)
    share, value, part = max(pure, key=lambda one: one[0])
    failed = share > limit and usual < limit and len(set(label[part])) < len(set(label))
    keys = keys_of(rows[part]) if failed else []
    told = (
        f"{name} {value}: {share:.1%} of {int(part.sum()):,} images are of one class, at most {limit:.0%} is believed"
    )
    told += f", such as {'; '.join(keys)}" if failed else ""
    return Finding(f"{name}: purest value", failed, told, round(share, 6), limit, int(part.sum()), keys)
