"""What the predictor answers when it does not score: one exception, one body, on every protocol."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from plumbline.errors import PlumblineError

CODES = {
    400: "malformed",
    403: "forbidden",
    404: "unknown",
    413: "too_much",
    415: "not_json",
    500: "internal",
    503: "unavailable",
}
"""What a refusal is counted as that has no word of its own, by status."""


class ServingError(PlumblineError):
    """A model cannot be loaded, or the server cannot start."""


class Refused(PlumblineError):
    """A request that gets no score. `status` is HTTP's; `reasons` gives the reason for each id it concerns.

    400, 403, 413, 415 and 431: the request is wrong; 404: a customer or version nobody knows; 503: ask again after
    `retry_after` seconds. `code` is a short word for why, from a closed list, for counting.
    """

    def __init__(
        self,
        status: int,
        message: str,
        reasons: Mapping[Any, str] | None = None,
        retry_after: int | None = None,
        code: str = "",
    ) -> None:
        super().__init__(message)
        self.code = code or CODES.get(status, "other")
        self.status = status
        self.reasons = dict(reasons or {})
        self.retry_after = retry_after
        self.request_id: str | None = None

    def body(self, request_id: str, entities: str) -> dict[str, Any]:
        """The JSON body of the refusal; `entities` as in `body`."""
        return body(str(self), request_id, entities, self.reasons)


class StoreAway(Refused):
    """The online store does not answer, or refuses every command: 503 for everybody, not for one customer."""

    def __init__(self, message: str) -> None:
        super().__init__(503, message, retry_after=1, code="store_away")


def body(message: str, request_id: str, entities: str, reasons: Mapping[Any, str] | None = None) -> dict[str, Any]:
    """The one shape of an error's JSON body: the message, a reason per id under what ids are of (`customers`), and the
    request's id."""
    return {
        "error": message,
        entities: {str(key): why for key, why in (reasons or {}).items()},
        "request_id": request_id,
    }
