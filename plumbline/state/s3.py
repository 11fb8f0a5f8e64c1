"""Objects in an S3-compatible bucket, by `obstore`: `If-None-Match` and `If-Match` decide who wins.

The server and its keys come from the standard variables: AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID,
AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN. Without keys, the role of the pod or the machine counts. Plain http is spoken
to loopback, elsewhere only with AWS_ALLOW_HTTP=true.

This module retries, for some seconds; the library would not say how often it did. When an answer was lost, the next
attempt may be refused because of our own write. Only then the object is compared with what was to be written.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Literal, TypeVar

from plumbline import clock, s3
from plumbline.errors import PlumblineError, ServiceUnavailable
from plumbline.state.objects import Changed, Exists, Object, StateError, changed_message, exists_message

if TYPE_CHECKING:
    from obstore import UpdateVersion

CONNECT_SECONDS = 3
REQUEST_SECONDS = 10
ATTEMPTS = 5
PATIENCE_SECONDS = 8
"""No attempt begins after that many seconds; with the last one's REQUEST_SECONDS, an outage is told within 18."""

T = TypeVar("T")


class _Undecided(Exception):
    """The server asks for the same request again (409)."""


class Bucket:
    """The objects below `s3://bucket/prefix`. Raises SettingsError when the endpoint may not be used."""

    def __init__(self, url: str, environment: Mapping[str, str]) -> None:
        from obstore.store import S3Store

        bucket, _, prefix = url.removeprefix("s3://").rstrip("/").partition("/")
        self.url = url.rstrip("/")
        self.endpoint = environment.get("AWS_ENDPOINT_URL")
        self.anonymous = "AWS_ACCESS_KEY_ID" not in environment
        http = s3.may_speak_http(self.endpoint, environment.get("AWS_ALLOW_HTTP", ""))
        self.store = S3Store(
            bucket,
            prefix=prefix or None,
            client_options={
                "allow_http": http,
                "connect_timeout": timedelta(seconds=CONNECT_SECONDS),
                "timeout": timedelta(seconds=REQUEST_SECONDS),
            },
            retry_config={"max_retries": 0, "retry_timeout": timedelta(seconds=PATIENCE_SECONDS)},
        )

    def where(self, key: str) -> str:
        return f"{self.url}/{key}"

    def read(self, key: str) -> Object | None:
        import obstore

        def get() -> Object | None:
            try:
                found = obstore.get(self.store, key)
            except FileNotFoundError as error:
                if _code(error) == "NoSuchBucket":
                    raise
                return None
            return Object(self.where(key), bytes(found.bytes()), found.meta["e_tag"] or "", found.meta["last_modified"])

        return self._persist(f"{self.where(key)} was not read", get)

    def create(self, key: str, content: bytes) -> str:
        return self._put(key, content, "create", Exists(exists_message(self.where(key))))

    def replace(self, key: str, content: bytes, if_match: str | None) -> str:
        refusal = Changed(changed_message(self.where(key)))
        return self._put(key, content, "overwrite" if if_match is None else _version(if_match), refusal)

    def delete(self, key: str) -> None:
        import obstore

        def remove() -> None:
            try:
                obstore.delete(self.store, key)
            except FileNotFoundError as error:  # a server may say so, S3 does not
                if _code(error) == "NoSuchBucket":
                    raise

        self._persist(f"it is not known whether {self.where(key)} was deleted", remove)

    def changed_at(self, prefix: str) -> int | None:
        return None

    def keys(self, prefix: str, after: str | None) -> list[str]:
        import obstore

        def pages() -> list[str]:
            stream = obstore.list(self.store, prefix, offset=after, chunk_size=1000)
            return [each["path"] for page in stream for each in page]

        return self._persist(f"{self.where(prefix)}/ was not listed", pages)

    def _put(
        self, key: str, content: bytes, mode: UpdateVersion | Literal["create", "overwrite"], refusal: PlumblineError
    ) -> str:
        import obstore
        from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError

        lost = False  # an answer: an attempt may have written, and the next one is refused because of it

        def put() -> str:
            nonlocal lost
            try:
                return obstore.put(self.store, key, content, mode=mode, use_multipart=False)["e_tag"] or ""
            except (AlreadyExistsError, PreconditionError) as error:
                if _status(error) == 409:
                    raise _Undecided(str(error)) from None
                current = self.read(key) if lost else None
                if current is None or current.content != content:
                    raise refusal from None
                return current.etag
            except BaseError:
                lost = True
                raise

        return self._persist(f"it is not known whether {self.where(key)} was written", put)

    def _persist(self, meanwhile: str, request: Callable[[], T]) -> T:
        """Repeats a request that the network or the server failed. `meanwhile` says what that leaves undone."""
        from obstore.exceptions import BaseError

        begun = clock.monotonic()
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return request()
            except (BaseError, FileNotFoundError, _Undecided) as error:
                if refusal := self._refusal(error):
                    raise refusal from None
                if attempt == ATTEMPTS or clock.monotonic() - begun > PATIENCE_SECONDS:
                    raise ServiceUnavailable(
                        f"{self.url} at {self.endpoint or 'AWS'} does not answer, asked {attempt} times in "
                        f"{clock.monotonic() - begun:.0f} s: {_line(error)}; {meanwhile}"
                    ) from None
            time.sleep(0.1 * 2**attempt)
        raise AssertionError("the last attempt returns or raises")

    def _refusal(self, error: Exception) -> StateError | None:
        """What an answer means that asking again cannot change; None for one that may."""
        status, code = _status(error), _code(error)
        server = self.endpoint or "AWS"
        if code == "NoSuchBucket":
            return StateError(f"{self.url}: {server} has no such bucket: create it, or correct its setting")
        if status in (401, 403) or "/latest/api/token" in str(error):  # the machine's own role is asked for last
            keys = "AWS_ACCESS_KEY_ID is not set, and nothing else gave keys" if self.anonymous else code or status
            return StateError(
                f"{self.url}: {server} does not grant access ({keys}): check AWS_ACCESS_KEY_ID, "
                "AWS_SECRET_ACCESS_KEY and what they may do with the bucket"
            )
        if status is not None and status < 500 and status not in (408, 409, 425, 429):
            return StateError(f"{self.url}: {server} refuses the request ({code or status}): {_line(error)}")
        return None


def _version(etag: str) -> UpdateVersion:
    return {"e_tag": etag}


def _status(error: Exception) -> int | None:
    """The HTTP status of an answer, None when there was none."""
    found = re.search(r"status code: (\d{3})", str(error))
    return int(found[1]) if found else None


def _code(error: Exception) -> str | None:
    """The S3 error code of an answer, such as NoSuchBucket."""
    found = re.search(r"<Code>(\w+)</Code>", str(error))
    return found[1] if found else None


def _line(error: Exception) -> str:
    """The library's message without its debug output, on one line."""
    return " ".join(str(error).partition("\n\nDebug source")[0].split())[:300]
