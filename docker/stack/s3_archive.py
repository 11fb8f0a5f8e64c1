"""The stack's buckets as one tar stream: `s3_archive.py save > FILE`, `s3_archive.py load < FILE`.

What points goes before what it points to: a release before its tables, a table's log before its data. What is written
meanwhile is then missing from the end of a log that nobody refers to yet, and never from the middle of one. Each
object's SHA-256 is in the stream and is compared when it is laid back.
"""

from __future__ import annotations

import hashlib
import io
import os
import sys
import tarfile
from typing import Any

import boto3

ORDER = ("state", "lake", "artifacts", "models")
"""Buckets in the order in which they are read."""

DIGEST, KEY, COUNT = "PLUMBLINE.sha256", "PLUMBLINE.key", "PLUMBLINE.count"
HINT = "_delta_log/_last_checkpoint"
"""Names a checkpoint that may be newer than the list of what is saved. Delta finds the newest one without it."""


def client() -> Any:
    """The S3 server's client, by the environment's key."""
    return boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"], region_name=os.environ["AWS_REGION"])


def keys(s3: Any, bucket: str) -> list[str]:
    """All keys of a bucket, the logs of tables first."""
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    found = [item["Key"] for page in pages for item in page.get("Contents", []) if not item["Key"].endswith(HINT)]
    return sorted(found, key=lambda key: ("/_delta_log/" not in f"/{key}", key))


def save(s3: Any, stream: Any) -> str:
    """Writes every object; what was written, in a sentence."""
    count, size = 0, 0
    with tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        for bucket in ORDER:
            for key in keys(s3, bucket):
                try:
                    content = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
                except s3.exceptions.NoSuchKey:  # gone since it was listed: nothing that was kept refers to it
                    continue
                member = tarfile.TarInfo(f"{bucket}/{key}")
                member.size = len(content)
                member.pax_headers = {DIGEST: hashlib.sha256(content).hexdigest(), KEY: member.name}
                archive.addfile(member, io.BytesIO(content))
                count, size = count + 1, size + len(content)
        last = tarfile.TarInfo("end")
        last.pax_headers = {COUNT: str(count)}
        archive.addfile(last)
    return f"{count} objects, {size / 1e6:.0f} MB"


def load(s3: Any, stream: Any) -> str:
    """Lays every object back into buckets that are empty; what was laid, in a sentence.

    Ends with a sentence when a bucket is not empty, when an object is not what was saved, or when the stream is cut.
    """
    for bucket in ORDER:
        if keys(s3, bucket):
            sys.exit(f"bucket {bucket} is not empty: a backup goes into an empty stack only")
    count, size, told = 0, 0, None
    try:
        with tarfile.open(fileobj=stream, mode="r|") as archive:
            for member in archive:
                if COUNT in member.pax_headers:
                    told = member.pax_headers[COUNT]
                    continue
                content = archive.extractfile(member).read()  # type: ignore[union-attr]
                if hashlib.sha256(content).hexdigest() != member.pax_headers.get(DIGEST):
                    sys.exit(f"{member.name}: not the bytes that were saved; nothing after it was laid back")
                bucket, _, key = member.pax_headers[KEY].partition("/")
                s3.put_object(Bucket=bucket, Key=key, Body=content)
                count, size = count + 1, size + len(content)
    except tarfile.TarError as error:
        sys.exit(f"the backup is cut or is no backup ({error}): {count} objects were laid back")
    if told != str(count):
        sys.exit(f"the backup is cut: {told or 'an unknown number of'} objects were saved, {count} were laid back")
    return f"{count} objects, {size / 1e6:.0f} MB"


if __name__ == "__main__":
    what = sys.argv[1] if len(sys.argv) == 2 else ""
    if what == "save":
        print(save(client(), sys.stdout.buffer), file=sys.stderr)
    elif what == "load":
        print(load(client(), sys.stdin.buffer), file=sys.stderr)
    else:
        sys.exit("expected: s3_archive.py save|load")
