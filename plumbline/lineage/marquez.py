"""The events that a Marquez was sent, read back from it: folded as the event file's are, so that all answers agree.

Its graph, its jobs' runs and its datasets' versions are not asked. They leave out a job that is running or was aborted,
give a page of a hundred, and name versions by ids of their own. The events are there as they were posted.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

from plumbline.errors import ServiceUnavailable
from plumbline.lineage import runs, sending
from plumbline.lineage.runs import Run
from plumbline.progress import warn

PAGE, MOST = 200, 20_000
"""Events asked for at once, and how many at most: some two years of daily runs, and 0.6 GB of memory."""


class Marquez:
    """Asks a Marquez, for `page` events at once; `most` bounds how many of them are read, the newest first."""

    def __init__(self, url: str, page: int = PAGE, most: int = MOST) -> None:
        self.url, self.page, self.most = url.rstrip("/"), page, most

    @property
    def where(self) -> str:
        return sending.shown(self.url)

    def runs(self) -> list[Run]:
        """All runs that it knows, oldest first; beyond `most` events the oldest are left out, with a warning.

        Raises ServiceUnavailable when it does not answer, or with something else than Marquez's events.
        """
        return runs.of_events(self._events())

    def _events(self) -> Iterator[dict[str, Any]]:
        read, total = 0, 1
        while read < total:
            if read >= self.most:
                warn(
                    f"{self.where} has {total:,} events: the newest {read:,} were read. What is older is missing "
                    "from this answer; the event file has all"
                )
                return
            path = f"/api/v1/events/lineage?limit={min(self.page, self.most - read)}&offset={read}"
            answer = self._get(path)
            try:
                events, total = list(answer["events"]), int(answer["totalCount"])
            except (KeyError, TypeError, ValueError):
                raise ServiceUnavailable(f"{self.where} is no Marquez: {path} gives no events and totalCount") from None
            if not events:
                return
            read += len(events)
            yield from (event for event in events if isinstance(event, dict))

    def _get(self, path: str) -> Any:
        try:
            with urllib.request.urlopen(sending.request(self.url, path), timeout=10) as answer:  # noqa: S310 (as given)
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise ServiceUnavailable(f"Marquez at {self.where} answers {error.code} to {path}") from None
        except (OSError, ValueError) as error:
            raise ServiceUnavailable(
                f"Marquez at {self.where} does not answer {path}: {type(error).__name__}"
            ) from None
