"""What changed between two releases, two model versions, or two days: tables, rows, code, and what moved.

Everything is read from what is named: release manifests, Delta versions (delta-rs, no Spark), the ledger's word of the
SQL that made them, the model registry, and git where this is a checkout.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plumbline.contracts import contract as contracts
from plumbline.errors import PlumblineError
from plumbline.lake import distributions, table_diff, version_diff
from plumbline.lake import tables as lake
from plumbline.lineage import column_lineage
from plumbline.product import Product
from plumbline.registry import registered_models
from plumbline.registry.registered_models import Registered
from plumbline.settings import ROOT, settings
from plumbline.state import ledger, releases
from plumbline.state.releases import Release
from plumbline.verdict import Verdict
from products.churn import CHURN

if TYPE_CHECKING:
    import pandas as pd

FEATURES, ORDERS = "features.customers", "analytics.orders"
LOCK = "requirements/pipeline.txt"
ORDER_VALUES = ("total_cents", "units")
REFERENCE = timedelta(days=28)
"""New orders are held against those of so many days before them, as the gate does."""
FEWEST = 500
"""Of fewer new orders a PSI is chance: with ten bins, 0.2 of a day's 50 (bins / orders)."""
NOT_FEATURES = [*version_diff.BOOKKEEPING, "snapshot_date", "event_time"]


class WhatChangedError(PlumblineError):
    """What was asked for does not exist, or its two sides cannot be compared."""


@dataclass(frozen=True)
class Side:
    """One of the two: the release behind it, the table versions that it is made of, code and environment."""

    name: str
    release: Release
    tables: dict[str, int]
    code_sha: str
    lock_hash: str
    model: Registered | None = None
    metrics: dict[str, float] = field(default_factory=dict)


def what_changed(product: Product, before: str, after: str) -> dict[str, Any]:
    """What differs between two things, each named as a release's number, `model:N` or a day (YYYY-MM-DD).

    Raises WhatChangedError when one does not exist or the two are of different kinds, LakeError when a version cannot
    be read.
    """
    sides = side(product, before), side(product, after)
    if (sides[0].model is None) != (sides[1].model is None):
        raise WhatChangedError(
            f"{before} and {after}: a model and a release cannot be compared; two of a kind can. A model's release is "
            "in `plumb what-changed model:N model:M`"
        )
    old, new = sides
    tables = [_table(product, name, old, new) for name in sorted({*old.tables, *new.tables})]
    return {
        "before": _about(old),
        "after": _about(new),
        "tables": tables,
        "dbt": _dbt(old, new),
        "features_sql": _features_sql(old, new),
        "features": _features(old, new),
        "orders": _orders(old, new),
        "model": _model(old, new),
        "gates": _gates(old, new),
        "batches": _batches(old.release, new.release),
        "code": _code(old.code_sha, new.code_sha),
        "lock": _lock(old, new),
    }


def side(product: Product, text: str) -> Side:
    """What an argument names. Raises WhatChangedError that lists the forms when it names nothing."""
    if re.fullmatch(r"\d+", text):
        release = releases.read(product.name, int(text))
        return _of_release(f"release {text}", release)
    if match := re.fullmatch(rf"(?:model:|v|{product.model}:)(\d+)", text):
        return _of_model(product, match[1])
    try:
        day = date.fromisoformat(text)
    except ValueError:
        raise WhatChangedError(
            f"{text!r}: expected a release's number (2), a model version (model:1) or a day (1998-06-30)"
        ) from None
    known = [releases.read(product.name, number) for number in releases.numbers(product.name)]
    covering = [release for release in known if release.as_of <= day]
    if not covering:
        first = f"the first is of {known[0].as_of}" if known else "there is none yet"
        raise WhatChangedError(f"{text}: no release covers a day up to then, {first}")
    return _of_release(f"release {covering[-1].release_id}, in force for {day}", covering[-1])


def _of_release(name: str, release: Release) -> Side:
    return Side(name, release, release.tables, release.code_sha, release.lock_hash)


def _of_model(product: Product, version: str) -> Side:
    found = registered_models.versions(product.model)
    model = next((item for item in found if item.version == version), None)
    if model is None:
        raise WhatChangedError(
            f"{product.model} has no version {version}; it has {[item.version for item in found] or 'none'}"
        )
    tags = model.tags
    named = (re.fullmatch(r"delta:(.+)@v=(\d+)", tags.get(tag, "")) for tag in ("data_version", "orders_version"))
    tables = {match[1]: int(match[2]) for match in named if match}
    release = releases.read(product.name, int(tags["release_id"]))
    metrics = registered_models.client().get_run(tags["run_id"]).data.metrics if "run_id" in tags else {}
    lock = tags.get("lock_hash", release.lock_hash)
    return Side(str(model), release, tables, tags.get("code_sha", release.code_sha), lock, model, dict(metrics))


def _about(one: Side) -> dict[str, Any]:
    release = one.release
    return {
        "name": one.name,
        "release_id": release.release_id,
        "as_of": str(release.as_of),
        "published_at": release.published_at,
        "code_sha": one.code_sha,
        "lock_hash": one.lock_hash,
        "undoes": release.undoes,
        "restores": release.restores,
        "why": release.why,
    }


def _table(product: Product, name: str, old: Side, new: Side) -> dict[str, Any]:
    """A table's versions and, where they differ, its rows by key and its columns; of what a stream appends to, how many
    rows it has."""
    versions = old.tables.get(name), new.tables.get(name)
    about: dict[str, Any] = {"table": name, "before": versions[0], "after": versions[1], "rows": None, "columns": {}}
    rejected = (old.release.rejected, new.release.rejected)
    key = () if name in product.appended else contracts.of_table(name).key
    if versions[0] is None or versions[1] is None:
        return about
    if versions[0] == versions[1] and rejected[0] == rejected[1]:
        rows = lake.rows(name, versions[0])
        return about | {"rows": {"before": rows, "after": rows, "added": 0, "removed": 0, "changed": 0}}
    return about | version_diff.compare(name, versions[0], versions[1], key, rejected)


def _dbt(old: Side, new: Side) -> dict[str, str]:
    """dbt model → changed, added or removed; what the ledger does not know is said as `unknown`."""
    then, now = (_digests(one) for one in (old, new))
    if then is None or now is None:
        return {"all models": "unknown: the ledger does not have the run that built them"}
    found = {}
    for model in sorted({*then, *now}):
        if model not in then or model not in now:
            found[model] = "removed" if model in then else "added"
        elif then[model] != now[model]:
            found[model] = "changed"
    return found


def _digests(one: Side) -> dict[str, str] | None:
    """dbt model → digest of its SQL, as the run that wrote the side's marts had it."""
    for table in ("analytics.customers", ORDERS):
        event = ledger.written_by(CHURN, table, one.tables[table]) if table in one.tables else None
        nodes = (event or {}).get("dbt") or []
        if digests := {node["node"].rpartition(".")[2]: node["sql"] for node in nodes if "sql" in node}:
            return digests
    return None


def _features_sql(old: Side, new: Side) -> dict[str, Any]:
    """Whether customers.sql changed (None: not recorded), and the expressions that did, by column."""
    definitions = []
    for one in (old, new):
        wrote = ledger.written_by(CHURN, FEATURES, one.tables[FEATURES]) if FEATURES in one.tables else {}
        definitions.append((wrote or {}).get("definition"))
    then, now = definitions
    if then is None or now is None:
        return {"changed": None, "columns": {}}
    if then == now:
        return {"changed": False, "columns": {}}
    was, is_now = (column_lineage.outputs(sql) for sql in (then, now))
    moved = {name: [was.get(name), is_now.get(name)] for name in {**was, **is_now} if was.get(name) != is_now.get(name)}
    return {"changed": True, "columns": moved}


def _features(old: Side, new: Side) -> dict[str, Any]:
    """The newest snapshot of each side held against the other, as `table_diff.compare` does; empty when the same."""
    if FEATURES not in old.tables or FEATURES not in new.tables or old.tables[FEATURES] == new.tables[FEATURES]:
        return {}
    (then, before, kinds), (now, after, types) = (_snapshot(one) for one in (old, new))
    if not len(before) or not len(after):
        return {}
    found = table_diff.compare(before, after, ["customer_id"], (kinds, types))
    return {"then": then, "now": now, **found}


def _snapshot(one: Side) -> tuple[str, pd.DataFrame, dict[str, str]]:
    """The newest snapshot's day, its rows without bookkeeping, and their types."""
    import pyarrow.compute as pc

    table = lake.open_table(FEATURES, one.tables[FEATURES])
    data = table.to_pyarrow_dataset()
    days = {str(part["snapshot_date"]) for part in table.partitions()}
    if not days:  # not partitioned: as small tables are
        days = {str(pc.max(data.to_table(columns=["snapshot_date"])["snapshot_date"]).as_py())}
    day = max(days)
    columns = [name for name in data.schema.names if name not in NOT_FEATURES]
    rows = data.to_table(columns=columns, filter=pc.field("snapshot_date") == date.fromisoformat(day))
    return (
        day,
        rows.to_pandas(),
        {name: str(kind) for name, kind in zip(rows.schema.names, rows.schema.types, strict=True)},
    )


def _orders(old: Side, new: Side) -> dict[str, Any]:
    """Orders that only the newer side has, against those of the 28 days before: a description by column, and PSI."""
    if ORDERS not in old.tables or ORDERS not in new.tables or old.tables[ORDERS] == new.tables[ORDERS]:
        return {}
    columns = ["order_id", "order_date", *ORDER_VALUES]
    then, now = (
        lake.open_table(ORDERS, one.tables[ORDERS]).to_pyarrow_table(columns=columns).to_pandas() for one in (old, new)
    )
    added = now[~now["order_id"].isin(then["order_id"])]
    if not len(added):
        return {"added": 0, "each": {}}
    first = min(added["order_date"])
    before = then[(then["order_date"] < first) & (then["order_date"] >= first - REFERENCE)]
    if not len(before):
        return {"added": len(added), "each": {}}
    values = {name: [part[name].to_numpy("float64") for part in (before, added)] for name in ORDER_VALUES}
    return {
        "added": len(added),
        "each": {
            name: {
                "psi": distributions.psi(*pair) if len(added) >= FEWEST else None,
                "before": distributions.describe(pair[0]),
                "after": distributions.describe(pair[1]),
            }
            for name, pair in values.items()
        },
    }


def _model(old: Side, new: Side) -> dict[str, Any]:
    if old.model is None or new.model is None:
        return {}
    metrics = {name: [old.metrics.get(name), new.metrics.get(name)] for name in sorted({*old.metrics, *new.metrics})}
    tags = {
        name: [old.model.tags.get(name), new.model.tags.get(name)]
        for name in ("feature_service", "data_version", "orders_version", "dataset_id", "cutoff", "release_id")
    }
    return {"metrics": metrics, "tags": tags}


def _gates(old: Side, new: Side) -> dict[str, list[str | None]]:
    """Gate → its verdict on each side, None where it did not run."""
    then, now = old.release.gates, new.release.gates
    return {name: [_verdict(then.get(name)), _verdict(now.get(name))] for name in sorted({*then, *now})}


def _verdict(gate: Verdict | None) -> str | None:
    if gate is None:
        return None
    return f"accepted: {gate.accepted.why}" if gate.accepted else gate.verdict


def _batches(old: Release, new: Release) -> dict[str, list[str]]:
    """Raw batches that are left out on one side only."""
    then, now = set(old.rejected), set(new.rejected)
    return {"left out since": sorted(now - then), "taken in again": sorted(then - now)}


def _code(then: str, now: str) -> dict[str, Any]:
    about: dict[str, Any] = {"before": then, "after": now, "commits": [], "files": []}
    first, last = (sha.partition("-")[0] for sha in (then, now))
    if then != now and first != last:
        about["commits"] = _git("log", "--oneline", f"{first}..{last}")
        about["files"] = _git("diff", "--name-only", first, last)
    return about


def _lock(old: Side, new: Side) -> dict[str, Any]:
    """Hashes, and the packages whose versions differ, where git has both locks."""
    about: dict[str, Any] = {"before": old.lock_hash, "after": new.lock_hash, "packages": {}}
    if old.lock_hash != new.lock_hash:
        shas = (one.code_sha.partition("-")[0] for one in (old, new))
        then, now = (_packages(_git("show", f"{sha}:{LOCK}")) for sha in shas)
        if then and now:
            names = sorted({*then, *now})
            about["packages"] = {n: [then.get(n), now.get(n)] for n in names if then.get(n) != now.get(n)}
    return about


def _packages(lines: list[str]) -> dict[str, str]:
    matches = (re.match(r"([A-Za-z0-9_.\[\]-]+)==([^\s;\\]+)", line) for line in lines)
    return {match[1]: match[2] for match in matches if match}


def _git(*arguments: str) -> list[str]:
    """The lines that git answers; none where there is no git, no checkout or no such commit."""
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return done.stdout.splitlines()


def page_path(before: str, after: str) -> Path:
    """Where the page of two arguments lies."""
    safe = (re.sub(r"[^\w.-]", "-", text) for text in (before, after))
    return settings().home / "report" / CHURN.name / f"what-changed-{'-to-'.join(safe)}.html"
