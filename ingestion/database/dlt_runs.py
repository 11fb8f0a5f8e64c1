"""dlt, as landing uses it: its settings, one run of it that appends to the lake, and what its errors mean."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

from ingestion.database.source import address
from plumbline import causes, files, s3
from plumbline.contracts import contract as contracts
from plumbline.errors import GateFailed, ServiceUnavailable
from plumbline.lake import tables as lake
from plumbline.product import Product
from plumbline.settings import settings

RAW = "raw"
"""The lake's folder that it lands in; other products land there too."""


def settle() -> None:
    """dlt's own settings, read when it is imported: quiet (it raises what it logs), no telemetry, nothing in ~.

    Its memory of columns is left aside: it would write a column that was dropped again, as nulls.
    """
    os.environ |= {
        "RUNTIME__LOG_LEVEL": "CRITICAL",
        "RUNTIME__DLTHUB_TELEMETRY": "false",
        "DLT_DATA_DIR": str(settings().home / "dlt"),
        "RESTORE_FROM_DESTINATION": "false",
    }


def write(resources: list[Any]) -> None:
    """Appends the rows of these resources to the tables of their names in `raw`."""
    import dlt

    home = settings().home
    if not s3.holds(settings().lake_uri):
        _mark(Path(settings().lake_uri) / RAW)
    pipeline = dlt.pipeline(
        pipeline_name="shop",
        pipelines_dir=str(home / "dlt"),
        destination=_destination(),
        dataset_name=RAW,
    )
    pipeline.drop()  # windows are stated by the run, so nothing of a run that was killed may be picked up
    pipeline.run(resources, table_format="delta", write_disposition="append")


def _mark(folder: Path) -> None:
    """Puts dlt's mark into its folder. It makes both, and refuses for ever a folder that has none: another product
    landed first, or a landing was killed between the two."""
    from dlt.destinations.impl.filesystem.filesystem import CURRENT_VERSION, INIT_FILE_NAME

    if not (folder / INIT_FILE_NAME).exists():
        versions = {"initial_version": CURRENT_VERSION, "current_version": CURRENT_VERSION}
        files.write_whole(folder / INIT_FILE_NAME, json.dumps(versions))


def _destination() -> Any:
    """The lake as dlt writes to it. In S3 dlt finds the keys by itself, in the environment."""
    import dlt

    more: dict[str, Any] = {}
    if s3.holds(settings().lake_uri):
        from dlt.common.configuration.specs import AwsCredentials

        more = {
            "credentials": AwsCredentials(endpoint_url=s3.endpoint(), region_name=s3.region()),
            "deltalake_storage_options": lake.storage_options(),
        }
    return dlt.destinations.filesystem(settings().lake_uri, deltalake_configuration=lake.KEEP_LOG, **more)


@contextmanager
def shop_at_hand(product: Product, as_of: date) -> Iterator[None]:
    """Turns what dlt makes of a shop that went away into ServiceUnavailable, of a gate into what the gate said, of a
    value that its driver or dlt cannot read into GateFailed; any other error passes."""
    from dlt.extract.exceptions import ResourceExtractionError
    from sqlalchemy.exc import DBAPIError, OperationalError

    try:
        yield
    except Exception as error:
        chain = list(causes.chain(error))
        for below in chain:
            if isinstance(below, GateFailed):
                raise below from None
            if isinstance(below, OperationalError):
                raise ServiceUnavailable(
                    f"the shop database {address()} went away while it was read: {below.orig}"
                ) from None
        table = next((below.pipe_name for below in chain if isinstance(below, ResourceExtractionError)), None)
        if table not in product.sources or causes.explained(error):
            raise
        cause = next((below.orig for below in chain if isinstance(below, DBAPIError)), chain[-1])
        raise GateFailed(
            f"the shop's {table} has a value that cannot be read as it is declared: {str(cause).strip()[:300]}\n  "
            "Nothing of it was landed. Mend the value, cast its column to text in a view, or name the column in "
            f"leftOut of {contracts.shop(table).file}; then run `plumb ingest --as-of {as_of}` again.",
            sets_aside=False,
        ) from None
