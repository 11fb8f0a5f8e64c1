"""Whether the order stream did what it promises, told in another way than it works: plain Python over whole tables.

For a home whose tables fit into memory: the demo's, and those in which the job was killed.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any

from plumbline import clock
from plumbline.lake import tables as lake
from plumbline.product import Product

EVENTS, DEAD, BOOKS = "raw.order_events", "raw.order_dead_letters", "raw.order_batches"
WINDOWS = {"1h": timedelta(hours=1), "24h": timedelta(hours=24), "7d": timedelta(days=7)}


def differences(product: Product, view: str, produced: Collection[str]) -> list[str]:
    """What is not as it must be, one line each, none when all is: `produced` are the ids of the events that were sent.

    Each landed once and no other did; the books cover every offset once and add up; each row of features is what its
    customer's events known by then come to; Redis holds each customer's newest row that has not expired.
    """
    events, features = rows(EVENTS), rows(product.streams[view])
    found = _events(events, set(produced)) + of_books(events, rows(DEAD), rows(BOOKS))
    found += of_features(events, features)
    return found + _online(product, view, features)


def _events(events: list[dict[str, Any]], produced: set[str]) -> list[str]:
    ids = Counter(event["event_id"] for event in events)
    found = [f"event {event_id} landed {count} times" for event_id, count in ids.items() if count > 1]
    found += [f"event {event_id} did not land" for event_id in sorted(produced - ids.keys())]
    return found + [f"event {event_id} landed and was not sent" for event_id in sorted(ids.keys() - produced)]


def of_books(events: list[dict[str, Any]], dead: list[dict[str, Any]], books: list[dict[str, Any]]) -> list[str]:
    """Where the books and the tables differ, or offsets are left out or there twice."""
    found = list[str]()
    landed, died = (Counter((r["batch"], _partition(r)) for r in rows) for rows in (events, dead))
    ends: dict[str, int] = {}
    for line in sorted(books, key=lambda line: (line["known_at"], line["partition"])):
        partition = _partition(line)
        place = (line["batch"], partition)
        if (line["landed"], line["dead_letters"]) != (landed.pop(place, 0), died.pop(place, 0)):
            found.append(f"the books have other counts than the tables for {place}")
        if line["messages"] != line["landed"] + line["duplicates"] + line["dead_letters"] or line["duplicates"] < 0:
            found.append(f"the books do not add up for {place}: {line}")
        if line["from_offset"] > ends.get(partition, 0):
            found.append(f"{partition} has a gap before {line['from_offset']}: {ends}")
        ends[partition] = max(line["until_offset"], ends.get(partition, 0))
    found += [f"{place} is in the tables and not in the books" for place in [*landed, *died]]
    places = Counter((_partition(row), row["offset"]) for row in [*events, *dead])
    return found + [f"offset {place} is there {count} times" for place, count in places.items() if count > 1]


def _partition(row: dict[str, Any]) -> str:
    return f"{row['topic']}/{row['partition']}"


def of_features(events: list[dict[str, Any]], features: list[dict[str, Any]]) -> list[str]:
    """Where rows of features are not what their customers' events come to."""
    mine: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for event in events:
        mine[event["customer_id"]].append(event)
    due = {(event["customer_id"], event["known_at"]) for event in events}
    there = Counter((row["customer_id"], row["event_time"]) for row in features)
    found = [f"no features of {pair[0]} at {pair[1]}" for pair in sorted(due - there.keys())]
    found += [f"features of {pair[0]} at {pair[1]}: {n} rows" for pair, n in there.items() if n > 1 or pair not in due]
    for row in features:
        expected = activity(mine[row["customer_id"]], row["event_time"])
        found += [
            f"customer {row['customer_id']} at {row['event_time']}: {name} is {row[name]}, its events come to {value}"
            for name, value in expected.items()
            if row[name] != value
        ]
    return found


def activity(events: list[dict[str, Any]], at: datetime) -> dict[str, int | None]:
    """What a customer's events come to at an instant."""
    known = [event for event in events if event["known_at"] <= at]
    found: dict[str, int | None] = {}
    for name, window in WINDOWS.items():
        inside = [event["total_cents"] for event in known if event["event_time"] > at - window]
        found |= {f"orders_{name}": len(inside), f"spend_cents_{name}": sum(inside)}
    placed = [event["event_time"] for event in known if event["event_time"] > at - WINDOWS["7d"]]
    found["last_order_second"] = int(max(placed).timestamp()) if placed else None
    return found


def _online(product: Product, view: str, features: list[dict[str, Any]]) -> list[str]:
    from feature_repo.online_rows import OnlineRows

    online = OnlineRows(product, view)
    newest: dict[int, dict[str, Any]] = {}
    served_since = clock.now() - WINDOWS["7d"]
    for row in sorted(features, key=lambda row: row["event_time"]):
        if row["event_time"] > served_since:
            newest[row["customer_id"]] = row
    strangers = online.entities() - {row["customer_id"] for row in features}
    found = [f"Redis has a row of {entity}, whom the lake does not know" for entity in strangers]
    for entity, stamp, values in online.read(list(newest)):
        row = newest[int(entity)]
        if stamp is None or stamp.timestamp() != row["event_time"].timestamp():
            found.append(f"Redis has customer {entity} as of {stamp}, the lake as of {row['event_time']}")
        elif values != {name: row[name] for name in values}:
            found.append(f"Redis has {values} of customer {entity}, the lake {row}")
    return found


def rows(table: str) -> list[dict[str, Any]]:
    """All rows of a table, none of one that is not there."""
    if lake.version(table) is None:
        return []
    found: list[dict[str, Any]] = lake.opened(table).to_pyarrow_dataset().to_table().to_pylist()
    return found
