"""Does the private Spark server grow? Its memory over 60 days of commands, every third of which loses one to SIGKILL.

`python -m bench.spark_server` starts the server in a home of its own. A day is a writer that appends to a Delta table
and merges into another, a reader of both, and on each third day a reader that is killed in the middle of a statement,
so that nobody releases its session. A day takes seconds here, so a session without a client ends after a minute in
place of two hours. It prints one JSON object: resident memory, and what the heap still holds after a
full collection (by `jcmd`, where the Java has it). Some ten minutes on two cores.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time

import psutil

from plumbline import java
from plumbline.lake import spark
from plumbline.progress import say
from plumbline.servers import services
from plumbline.settings import settings

MANAGER = "spark.connect.session.manager"
DAYS, KILLED = int(os.environ.get("BENCH_DAYS", "60")), 3
WRITER = """
from plumbline.lake import spark, tables
s, where = spark.session(writer="features"), tables.uri
fresh = s.range(20000).selectExpr("id AS customer_id", "{day} AS day", "id * 100 AS spend")
fresh.write.format("delta").mode("append").partitionBy("day").save(where("features.customers"))
fresh.createOrReplaceTempView("fresh")
columns = "(customer_id BIGINT, day INT, spend BIGINT)"
s.sql(f"CREATE TABLE IF NOT EXISTS delta.`{{where('analytics.orders')}}` {{columns}} USING delta")
s.sql(f"MERGE INTO delta.`{{where('analytics.orders')}}` AS old USING fresh ON old.customer_id = fresh.customer_id "
      "WHEN MATCHED THEN UPDATE SET * WHEN NOT MATCHED THEN INSERT *")
"""
READER = """
from plumbline.lake import spark, tables
s = spark.session()
s.sql(f"SELECT day, sum(spend) FROM delta.`{tables.uri('features.customers')}` GROUP BY day").collect()
s.sql(f"SELECT count(*) FROM delta.`{tables.uri('analytics.orders')}`").collect()
"""
LOST = """
from plumbline.lake import spark
s = spark.session()
print("at work", flush=True)
s.sql("SELECT sum(a.id * b.id % 7) FROM range(60000) AS a CROSS JOIN range(60000) AS b").collect()
"""


def main() -> None:
    """Prints resident memory in MiB by day, and how many sessions nobody released."""
    with tempfile.TemporaryDirectory(prefix="spark-server") as folder:
        os.environ |= {"PLUMBLINE_HOME": folder, "PLUMBLINE_SPARK_MEMORY": "1g"}
        os.environ.pop("SPARK_REMOTE", None)
        settings.cache_clear()
        spark.CONF[f"{MANAGER}.defaultSessionTimeout"] = "1m"
        spark.CONF[f"{MANAGER}.maintenanceInterval"] = "10s"
        spark.server_url()
        (server,) = filter(None, [services.find("spark")])
        memory, live, seconds, lost = dict[int, int](), dict[int, int | None](), dict[int, float](), 0
        try:
            for day in range(1, DAYS + 1):
                begun = time.perf_counter()
                _run(WRITER.format(day=day))
                _run(READER)
                seconds[day] = round(time.perf_counter() - begun, 1)
                if day % KILLED == 0:
                    _killed()
                    lost += 1
                memory[day] = round(_java(server.pid) / 2**20)
                live[day] = _live(server.pid)
                say(f"day {day}: {memory[day]} MiB, {live[day]} MiB of it live, {seconds[day]} s")
        finally:
            services.stop_all()
        shown = [day for day in memory if day % 10 == 0 or day == 1]
        print(
            json.dumps(
                {
                    "days": DAYS,
                    "sessions of killed readers": lost,
                    "heap limit": "1g",
                    "resident MiB by day": {day: memory[day] for day in shown},
                    "live heap MiB by day": {day: live[day] for day in shown},
                    "seconds of writer and reader by day": {day: seconds[day] for day in shown},
                },
                indent=1,
            )
        )


def _java(pid: int) -> int:
    own = psutil.Process(pid)
    return max(int(process.memory_info().rss) for process in (own, *own.children(recursive=True)))


def _live(pid: int) -> int | None:
    """MiB that are reachable after a full collection; None where the Java has no jcmd."""
    jcmd = java.java_home() / "bin" / "jcmd"
    if not jcmd.exists():
        return None
    run = subprocess.run([str(jcmd), str(pid), "GC.class_histogram"], capture_output=True, text=True, check=True)
    return round(int(run.stdout.split()[-1]) / 2**20)


def _run(script: str) -> None:
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])


def _killed() -> None:
    reader = subprocess.Popen([sys.executable, "-c", LOST], stdout=subprocess.PIPE, text=True)
    if reader.stdout is None or reader.stdout.readline() != "at work\n":
        raise RuntimeError("the reader that is to be killed never began")
    time.sleep(1)
    reader.send_signal(signal.SIGKILL)
    reader.wait()


if __name__ == "__main__":
    main()
