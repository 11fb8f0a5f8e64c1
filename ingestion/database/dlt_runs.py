"""dlt, as landing uses it: its settings, one run of it that appends to the lake, and what its errors mean."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ingestion.database.source import address
from plumbline import s3
from plumbline.errors import GateFailed, ServiceUnavailable
from plumbline.lake import tables as lake
from plumbline.settings import settings


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
    pipeline = dlt.pipeline(
        pipeline_name="shop",
        pipelines_dir=str(home / "dlt"),
        destination=_destination(),
        dataset_name="raw",
    )
    pipeline.drop()  # windows are stated by the run, so nothing of a run that was killed may be picked up
    pipeline.run(resources, table_format="delta", write_disposition="append")


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
def shop_at_hand() -> Iterator[None]:
    """Turns what dlt makes of a shop that went away into ServiceUnavailable, of a gate into what the gate said; any
    other error passes."""
    from sqlalchemy.exc import OperationalError

    try:
        yield
    except Exception as error:
        below: BaseException | None = error
        while below is not None and not isinstance(below, OperationalError | GateFailed):
            below = below.__cause__ or below.__context__
        if below is None:
            raise
        if isinstance(below, GateFailed):
            raise below from None
        raise ServiceUnavailable(f"the shop database {address()} went away while it was read: {below.orig}") from None
