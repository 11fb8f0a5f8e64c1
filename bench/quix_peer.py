"""Customers' activity by Quix Streams, read from the same topic and written to the same Redis: a peer of the job.

`PYTHON -m bench.quix_peer` in an environment of its own, with a JSON object on standard input: the client's settings,
Redis' address, how many events there are. Each customer's orders of seven days are in its state (RocksDB); each event
computes the same counts and sums anew, and a hash in Redis takes them. No checks, no duplicates told, nothing offline.
"""

from __future__ import annotations

import json
import sys
import time
from datetime import datetime
from typing import Any

HOUR, DAY = 3_600, 86_400
WINDOWS = {"1h": HOUR, "24h": DAY, "7d": 7 * DAY}
FLUSH = 1_000


def main() -> None:
    """Reads the topic once and prints how many events a second that was."""
    import redis
    from quixstreams import Application  # type: ignore[import-not-found]
    from quixstreams.kafka.configuration import ConnectionConfig  # type: ignore[import-not-found]

    given = json.load(sys.stdin)
    app = Application(
        broker_address=ConnectionConfig.from_librdkafka_dict(given["client"]),
        consumer_group="quix",
        auto_offset_reset="earliest",
        state_dir=given["state"],
        loglevel="WARNING",
        use_changelog_topics=False,
    )
    client = redis.from_url(given["redis"])
    pipeline = client.pipeline(transaction=False)
    seen, begun = 0, 0.0

    def activity(order: dict[str, Any], state: Any) -> None:
        nonlocal seen, begun
        begun = begun or time.perf_counter()
        now = time.time()  # noqa: TID251 (its environment has none of ours)
        orders = [one for one in state.get("orders", []) if one[0] > now - 7 * DAY]
        orders.append([datetime.fromisoformat(order["event_time"]).timestamp(), order["total_cents"]])
        state.set("orders", orders)
        row: dict[str, Any] = {"last_order_second": int(max(one[0] for one in orders))}
        for name, seconds in WINDOWS.items():
            cents = [one[1] for one in orders if one[0] > now - seconds]
            row |= {f"orders_{name}": len(cents), f"spend_cents_{name}": sum(cents)}
        pipeline.hset(f"quix:{order['customer_id']}", mapping=row)
        seen += 1
        if seen % FLUSH == 0:
            pipeline.execute()
        if seen == given["events"]:
            pipeline.execute()
            print(json.dumps(round(seen / (time.perf_counter() - begun))), flush=True)
            app.stop()

    topic = app.topic(given["topic"], value_deserializer="json", key_deserializer="str")
    frame = app.dataframe(topic)
    frame.update(activity, stateful=True)
    app.run()


if __name__ == "__main__":
    main()
