"""A shadow check: a model answers beside the champion, for real customers from the online store, and nobody sees it."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any

from plumbline.lake import tables as lake
from plumbline.progress import say
from plumbline.servers import online_store
from plumbline.state import releases
from products.churn import CHURN
from serving.churn import log as outcome_log
from serving.churn.scorer import Scorer
from serving.errors import ServingError

if TYPE_CHECKING:
    import pandas as pd

PRODUCT = CHURN.name
FEATURES = "features.customers"
SAMPLED, ASKED = 400, 100
"""How many of the release's customers, and how many of those asked about most recently."""
SEED = 1997
MOVES = 3


def compare(version: str, champion: str, strict: bool = True) -> dict[str, Any]:
    """Both models' answers for the same customers. Raises ServingError when `version` must not take over.

    It must answer every one with a finite score, and (if `strict`) may not miss a value that the release holds.
    """
    import numpy as np
    import pandas as pd

    asked = customers(SAMPLED, ASKED)
    say(f"shadow check: versions {version} and {champion} on {len(asked)} customers")
    models = [Scorer(name) for name in (version, champion)]
    theirs, ours = (scorer.score(asked) for scorer in models)
    scores = [np.array([p.probability for p in scored.predictions]) for scored in (theirs, ours)]
    bad = [customer for customer, score in zip(asked, scores[0], strict=True) if not math.isfinite(score)]
    if bad:
        raise ServingError(f"version {version} gives no finite score for {len(bad)} customers, such as {bad[:5]}")
    lost = _lost(asked, Counter(name for p in theirs.predictions for name in p.missing))
    if lost and strict:
        told = ", ".join(f"{name} ({count:,})" for name, count in lost.items())
        raise ServingError(
            f"version {version} lacks features online that the release holds, for so many of {len(asked)}: "
            f"{told}. Run `plumb materialize`; if it says unchanged, older definitions brought it online"
        )
    moved = np.argsort(-np.abs(scores[0] - scores[1]), kind="stable")[:MOVES]
    ranks = pd.Series(scores[0]).rank().corr(pd.Series(scores[1]).rank())
    return {
        "customers": len(asked),
        "mean_score": f"{scores[1].mean():.4f} → {scores[0].mean():.4f}",
        "rank_correlation": None if math.isnan(ranks) else round(float(ranks), 4),
        "missing_pct": f"{ours.pct_missing:.1f} → {theirs.pct_missing:.1f}",
        "largest_moves": ", ".join(f"customer {asked[i]}: {scores[1][i]:.3f} → {scores[0][i]:.3f}" for i in moved),
    }


def tried(version: str) -> dict[str, Any]:
    """One real customer scored by a version: customer_id, churn_probability, release_id."""
    prediction = Scorer(version).score(customers(most=1)).predictions[0]
    return {
        "customer_id": prediction.row.key,
        "churn_probability": prediction.probability,
        "release_id": prediction.row.release_id,
    }


def in_words(tried: dict[str, Any]) -> str:
    """What was tried, for a message."""
    return f"customer {tried['customer_id']}: {tried['churn_probability']:.3f}"


def customers(most: int, recent: int = 0) -> list[int]:
    """A seeded sample of the customers of the release that is online, and those of them asked about most recently."""
    import numpy as np

    held = sorted(_online_rows(["customer_id"])["customer_id"].tolist())
    chosen = np.random.default_rng(SEED).choice(held, min(most, len(held)), replace=False) if most > 1 else held[:1]
    known = set(held)
    found = [int(customer) for customer in chosen]
    if recent and lake.version(outcome_log.TABLE) is not None:
        log = lake.open_table(outcome_log.TABLE).to_pyarrow_dataset().to_table(columns=["customer_id", "logged_at"])
        newest = log.sort_by([("logged_at", "descending")])["customer_id"].to_pylist()
        found += [customer for customer in dict.fromkeys(newest) if customer in known][:recent]
    return list(dict.fromkeys(found))


def _lost(asked: list[int], missing: Counter[str]) -> dict[str, int]:
    """Of the stored features, how many more values are missing online than in the release's rows of these customers."""
    stored = _online_rows(None)
    stored = stored[stored["customer_id"].isin(asked)]
    held = {name: int(stored[name].isna().sum()) for name in missing if name in stored.columns}
    unknown = {name: 0 for name in missing if name not in stored.columns and _is_stored(name)}
    return {name: missing[name] - count for name, count in (held | unknown).items() if missing[name] > count}


def _is_stored(name: str) -> bool:
    from feature_repo import store as feature_store

    view = feature_store.open_here(CHURN).get_feature_view(CHURN.view)
    return name in {field.name for field in view.features}


def _online_rows(columns: list[str] | None) -> pd.DataFrame:
    """The lake's rows that end where the online ones do. Raises ServingError when nothing is online."""
    import pyarrow.compute as pc

    found = online_store.online(online_store.client(), CHURN)
    if found is None:
        raise ServingError("nothing is materialized: run `plumb materialize` before a deployment")
    release_id, newest = found
    release = releases.required(PRODUCT, release_id)
    table = lake.open_table(FEATURES, release.version(FEATURES)).to_pyarrow_dataset()
    rows: pd.DataFrame = table.to_table(columns=columns, filter=pc.field("event_time") == newest).to_pandas()
    if not len(rows):
        raise ServingError(f"release {release.release_id} has no {FEATURES} rows of {newest:%F %T} UTC")
    return rows
