"""What came of the image predictor's answers: the Delta table `serving.image_outcomes`, one row an answer.

A person says what the picture shows. A row is appended once and never changed. `simulated` says that it is made up; in
this repository every row is. An answer about a picture without a label has no row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from plumbline.lake import tables as lake
from products.images import IMAGES
from serving import outcomes

if TYPE_CHECKING:
    import pyarrow as pa

REVIEWED_BELOW = 0.8
"""An answer with a lower probability is not used before a person has looked at the picture."""


def schema() -> pa.Schema:
    """The table's columns. `answered` is the model's label, `label` the picture's; `agreed` says that they are one."""
    import pyarrow as pa

    return pa.schema(
        [
            ("request_id", pa.string()),
            ("image_id", pa.string()),
            ("answered", pa.string()),
            ("label", pa.string()),
            ("agreed", pa.bool_()),
            ("reviewed", pa.bool_()),
            ("simulated", pa.bool_()),
            ("recorded_at", pa.timestamp("us", tz="UTC")),
        ]
    )


def row(request_id: str, image_id: str, answered: str, probability: float, label: str) -> dict[str, Any]:
    """The simulated outcome of an answer about a picture that shows `label`."""
    return {
        "request_id": request_id,
        "image_id": image_id,
        "answered": answered,
        "label": label,
        "agreed": answered == label,
        "reviewed": probability < REVIEWED_BELOW,
        "simulated": True,
    }


def awaiting(version: int | None = None) -> list[dict[str, Any]]:
    """The answers, up to that version of the log, that have no outcome yet: `request_id`, `image_id`, `label` and
    `score`.

    Which version on which track answered is not read. An image twice in one request is one row.
    """
    columns = ["request_id", "image_id", "label", "score"]
    log = lake.open_table(IMAGES.log, version).to_pyarrow_table(columns=columns)
    known = outcomes.known(IMAGES)
    found = {key: row for row in log.to_pylist() if (key := outcomes.key(IMAGES, row)) not in known}
    return [found[key] for key in sorted(found)]


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What came of it, counted."""
    return {"agreed": sum(row["agreed"] for row in rows), "reviewed": sum(row["reviewed"] for row in rows)}


def append(rows: list[dict[str, Any]], new: bool = False) -> int:
    """Appends rows as serving.outcomes.append does."""
    return outcomes.append(IMAGES, schema(), rows, new)
