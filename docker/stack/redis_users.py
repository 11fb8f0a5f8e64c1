"""Redis' users, one a service, and what each may do; running it again sets their passwords again.

The passwords come from the environment, under the services' names, and `GENERATION`, which every user's name ends in.
Users of other generations keep working until it runs with `RETIRE=1`.
"""

from __future__ import annotations

import os

MAY = {
    "pipeline": "~* &* +@all -@dangerous +keys +config|get +info +flushdb",
    "predictor": "~* resetchannels +@read +@connection -@dangerous +config|get +info "
    "+script|load +eval +evalsha +eval_ro +evalsha_ro",
}
"""Service → what it may do: the pipeline writes what is online, a predictor reads it."""


def main() -> None:
    """Users first, then those of other generations go, then all of it to the file that a start reads."""
    import redis

    # It may be starting, or a network policy be new.
    patient = redis.retry.Retry(redis.backoff.ConstantBackoff(1), 60)
    client = redis.Redis("redis", username="admin", password=os.environ["ADMIN"], decode_responses=True, retry=patient)
    generation = os.environ["GENERATION"]
    for service, may in MAY.items():
        password = os.environ[service.upper()]
        client.execute_command("ACL", "SETUSER", f"{service}-{generation}", "reset", "on", f">{password}", *may.split())
    users = [line.split()[1] for line in client.execute_command("ACL", "LIST")]
    retired = [
        name
        for name in users
        if os.environ.get("RETIRE") and name.rpartition("-")[0] in MAY and not name.endswith(f"-{generation}")
    ]
    for name in retired:
        client.execute_command("ACL", "DELUSER", name)
    client.execute_command("ACL", "SAVE")
    print(f"users of {', '.join(MAY)}" + (f"; retired {len(retired)}" if retired else ""))


if __name__ == "__main__":
    main()
