"""What an error of a library means to the operator, in one place: a full disk, a home that cannot be written, a
server that went away, an S3 server that refuses. Of anything else the traceback is what helps."""

from __future__ import annotations

import errno
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from plumbline import s3
from plumbline.errors import PlumblineError, ServiceUnavailable
from plumbline.settings import settings

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FULL_SAID = ("No space left on device", "disk is full", "Disk quota exceeded", "File too large", "os error 28")
UNWRITABLE = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST)
UNWRITABLE_SAID = ("Read-only file system", "readonly database", "unable to open database file", "os error 30")
SPARK_CANNOT_WRITE = "TASK_WRITE_FAILED"  # all that a client of Spark Connect is told; why is in the server's log
ROOM = 16 * 2**20
"""Bytes: with less on the disk a write that failed is taken to have failed for that."""
S3_REFUSED = re.compile(
    r"\b(AccessDenied|AuthorizationHeaderMalformed|ExpiredToken|InvalidAccessKeyId|InvalidToken|NoSuchBucket"
    r"|RequestTimeTooSkewed|SignatureDoesNotMatch)\b"
)
DATA_FILE = re.compile(
    r"(?:Object at location |Failed to open local file ')(\S+\.parquet)(?: not found|'.*No such file)"
    r"|Could not open Parquet input source '([^']+)'",
    re.DOTALL,
)
S3_UNREACHABLE = (
    "Generic S3 error",  # delta-rs
    "Could not connect to the endpoint URL",  # botocore: dlt, MLflow
    "Unable to execute HTTP request",  # Spark
)
SPARK_SAID = ("StatusCode.UNAVAILABLE", "SESSION_NOT_FOUND", "SESSION_CHANGED", "SESSION_CLOSED")


class DataFileTrouble(PlumblineError):
    """A data file of the lake is gone or cut."""


class DiskTrouble(PlumblineError):
    """A folder that the command writes to is full or cannot be written."""


def explained(error: BaseException) -> PlumblineError | None:
    """The error to show instead of this one; None when it is one of ours, or not of a kind known here."""
    if isinstance(error, PlumblineError) or not isinstance(error, Exception):
        return None
    errors = list(chain(error))
    told = "\n".join(str(each) for each in errors)
    for each in errors:
        if isinstance(each, OSError) and each.errno in FULL:
            return _full(str(each.filename or settings().home))
        if isinstance(each, OSError) and each.errno in UNWRITABLE and _in_home(each.filename):
            return _unwritable(f"{each.filename}: {each.strerror}")
        if type(each).__module__.startswith("redis.") and type(each).__name__ in ("ConnectionError", "TimeoutError"):
            return ServiceUnavailable(f"Redis, the online store, went away: {each}. Run the same again.")
    return said(told)


def said(told: str) -> PlumblineError | None:
    """The same from an error's text alone, where a library hands on nothing else (dbt, Spark, Delta)."""
    if any(phrase in told for phrase in FULL_SAID):
        return _full(str(settings().home))
    if SPARK_CANNOT_WRITE in told and (where := _without_room()):
        return _full(where)
    if line := _line(told, UNWRITABLE_SAID):
        return _unwritable(line)
    if found := S3_REFUSED.search(told):
        return s3.refused(found.group())
    if any(phrase in told for phrase in S3_UNREACHABLE):
        return s3.unreachable()
    if match := DATA_FILE.search(told):
        return _data_file(match.group(1), match.group(2))
    if any(phrase in told for phrase in SPARK_SAID):
        why = (_line(told, ("details =",)) or _line(told, SPARK_SAID)).removeprefix("details = ").strip('"')
        return ServiceUnavailable(
            f"Spark went away: {why}. Its log is {settings().home / 'logs' / 'spark.log'}; run the same again."
        )
    return None


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what it was made of, the first cause last."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _line(told: str, phrases: tuple[str, ...]) -> str:
    return next((line.strip()[:300] for line in told.splitlines() if any(phrase in line for phrase in phrases)), "")


def _in_home(filename: object) -> bool:
    return str(filename).startswith((str(settings().home), settings().lake_uri))


def _without_room() -> str | None:
    folders = [path for path in (settings().lake_uri, str(settings().home)) if Path(path).is_dir()]
    return next((path for path in folders if shutil.disk_usage(path).free < ROOM), None)


def _data_file(gone: str | None, cut: str | None) -> PlumblineError:
    what = f"{gone} is gone" if gone else f"{cut} is cut or no Parquet"
    return DataFileTrouble(
        f"a data file of the lake cannot be read: {what}. Versions of its table that name it cannot be read either: "
        "bring the file back from a copy of the lake, or go back to a release without it by `plumb releases undo`."
    )


def _full(where: str) -> PlumblineError:
    return DiskTrouble(
        f"no room left on the disk of {where}: free some and run the same again. Nothing is published; "
        "what was written half is not used."
    )


def _unwritable(what: str) -> PlumblineError:
    return DiskTrouble(
        f"cannot write to {what}. All state lives in PLUMBLINE_HOME={settings().home}: "
        "it must be a folder that this user can write; then run the same again."
    )
