"""What a stack's lake, Redis and registry hold, as digests: sent into a container by `python -`, so it imports nothing
of the tests. Prints JSON."""

import hashlib
import json

import pandas as pd

from plumbline.lake import tables as lake
from plumbline.registry import registered_models, trusted_models
from plumbline.servers import online_store
from plumbline.state import releases
from products.churn import CHURN

WHEN = ("loaded_at", "created_at")


def content(table: str, version: int) -> str:
    rows = lake.open_table(table, version).to_pyarrow_table()
    names = sorted(name for name in rows.column_names if name not in WHEN and not name.startswith("_dlt"))
    hashes = pd.util.hash_pandas_object(rows.select(names).to_pandas(), index=False).to_numpy()
    hashes.sort()
    return f"{len(hashes)} rows {hashlib.sha256(hashes.tobytes()).hexdigest()[:16]}"


def online() -> str:
    client = online_store.client()
    keys = sorted(client.scan_iter(count=10_000))
    pipeline = client.pipeline(transaction=False)
    for key in keys:
        pipeline.hgetall(key)
    values = [sorted(found.items()) for found in pipeline.execute()]
    return f"{len(keys)} keys {hashlib.sha256(repr((keys, values)).encode()).hexdigest()[:16]}"


def model(version: str) -> str:
    found = registered_models.find(CHURN.model, version)
    return hashlib.sha256(trusted_models.stored(found.source, CHURN.model)).hexdigest()[:16]


release = releases.required(CHURN.name, None)
models = {
    found.version: [model(found.version), *sorted(found.aliases)] for found in registered_models.versions(CHURN.model)
}
print(
    json.dumps(
        {
            "release": release.release_id,
            "tables": {name: content(name, version) for name, version in sorted(release.tables.items())},
            "online": online(),
            "models": models,
        },
        sort_keys=True,
    )
)
