"""A batch's manifest in the raw bucket: all that landed, written when it is there, and from then on the one source of
the batch's rows. In memory its rows are Arrow's, some hundred bytes a picture."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from ingestion.images import tables
from plumbline import files
from products.images import LABELS, RAW

if TYPE_CHECKING:
    import pyarrow as pa

BY_INGESTION = "ingestion"
"""Who labelled, where the label came with the picture."""


@dataclass(frozen=True)
class Manifest:
    """`images` are the new rows of raw.images; `statements` those of raw.image_labels beside the labels at ingestion.

    `head` says of which batch and source, and counts: known, repeated_in_source, labels_stated, labels_that_wait.
    """

    head: dict[str, Any]
    images: pa.Table
    statements: pa.Table

    def labels(self) -> pa.Table:
        """All new rows of raw.image_labels: of each labelled picture its label at ingestion, then the statements."""
        import pyarrow as pa
        import pyarrow.compute as pc

        labelled = self.images.filter(pc.is_valid(self.images["label_at_ingestion"]))
        first = pa.table(
            {
                "image_id": labelled["image_id"],
                "label": labelled["label_at_ingestion"],
                "event_time": labelled["event_time"],
                "labelled_at": labelled["ingestion_timestamp"],
                "labelled_by": pa.array([BY_INGESTION] * len(labelled), pa.string()),
                "batch_id": labelled["batch_id"],
            }
        )
        return pa.concat_tables([first.cast(self.statements.schema), self.statements])

    def content(self) -> bytes:
        """The JSON object that the bucket holds, a picture on a line."""
        text = io.StringIO()
        text.write(json.dumps(self.head, sort_keys=True)[:-1])
        for name, rows in (("images", self.images), ("statements", self.statements)):
            text.write(f', "{name}": [')
            divider = "\n"
            for batch in rows.to_batches(max_chunksize=tables.ROWS_AT_ONCE):
                for row in batch.to_pylist():
                    text.write(divider + json.dumps(row, sort_keys=True, default=datetime.isoformat))
                    divider = ",\n"
            text.write("]")
        text.write("}\n")
        return text.getvalue().encode()


def read(content: bytes, where: str) -> Manifest:
    """A manifest from its JSON. Raises Unreadable."""
    head = files.json_object(content, where)
    rows = {name: head.pop(name, []) for name in ("images", "statements")}
    return Manifest(head, tables.of_json(RAW, rows["images"]), tables.of_json(LABELS, rows["statements"]))
