"""What Feast knows of the image product: entity, views and services. The embeddings themselves are made by embed.py.

A version of embeddings is a view over a table of its own. It stays as it is: a model names the service that it was
trained on, and the predictor asks Feast for that one. Another preprocessing or network is a new view beside these.
"""

from __future__ import annotations

from datetime import timedelta

from feast import Entity, FeatureService, FeatureView, Field, ValueType
from feast.infra.offline_stores.contrib.spark_offline_store.spark_source import SparkSource
from feast.types import Array, Float32, Int64, String

image = Entity(
    name="image",
    join_keys=["image_id"],
    value_type=ValueType.STRING,
    description="A raw picture, by the digest of its bytes.",
)

NEVER_EXPIRES = timedelta(0)
"""A picture does not change, so its embedding is never too old."""


def source(table: str, relation: str = "") -> SparkSource:
    """Where a view is read offline: its table, or in a release's store the `relation` at one Delta version of it."""
    return SparkSource(
        name=table.replace(".", "_"),
        query=f"SELECT * FROM {relation or table}",
        timestamp_field="event_time",
        created_timestamp_column="created_at",
        description="One row per image and clean picture; event_time is from when the image counts.",
    )


COLUMNS = [
    Field(name="embedding", dtype=Array(Float32), description="The network's 1,280 numbers for the picture."),
    Field(name="uri", dtype=String, description="Where the clean picture lies."),
    Field(name="clean_sha256", dtype=String, description="Hex digest of the clean picture's bytes."),
    Field(name="label", dtype=String, description="The label that came with the picture; null without one."),
    Field(name="preprocessing_version", dtype=String, description="The rule from pixels to the network's input."),
    Field(name="extraction_model", dtype=String, description="The network, by name and digest."),
    Field(name="cleaning_version", dtype=String, description="The cleaning that made the picture."),
    Field(name="release_id", dtype=Int64, description="The release that wrote the row."),
]
"""What every version of embeddings has. When the picture landed is in the table alone: Feast keeps seconds."""

image_embeddings_v1 = FeatureView(
    name="image_embeddings_v1",
    entities=[image],
    ttl=NEVER_EXPIRES,
    source=source("features.image_embeddings_v1"),
    online=True,
    schema=COLUMNS,
    description="Embeddings of whole pictures at 224 pixels.",
)

image_embeddings_v2 = FeatureView(
    name="image_embeddings_v2",
    entities=[image],
    ttl=NEVER_EXPIRES,
    source=source("features.image_embeddings_v2"),
    online=True,
    schema=COLUMNS,
    description="Embeddings of whole pictures at 128 pixels: a third of the time.",
)

images_v1 = FeatureService(
    name="images_v1",
    features=[image_embeddings_v1[["embedding"]]],
    description="What a classifier on embeddings of version 1 reads.",
)

images_v2 = FeatureService(
    name="images_v2",
    features=[image_embeddings_v2[["embedding"]]],
    description="The same on embeddings of version 2.",
)

DEFINITIONS = [image, image_embeddings_v1, image_embeddings_v2, images_v1, images_v2]
