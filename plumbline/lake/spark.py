"""Spark: one private Connect server a home, so that a run pays for one JVM; or in process; or a cluster's server.

`session()` is the only way to Spark. It finds or starts the server, checks its health first, and retries for
seconds rather than Spark's default ten minutes, so that a server that is gone is an error one can read.
"""

from __future__ import annotations

import logging
import os
import socket
import uuid
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from plumbline import files, java, s3
from plumbline.errors import ServiceUnavailable
from plumbline.lake.tables import KEEP_FILES
from plumbline.servers import services
from plumbline.settings import ROOT, settings

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

SERVER = "org.apache.spark.sql.connect.service.SparkConnectServer"

JAVA = "-XX:+UseParallelGC -XX:-UsePerfData"

CONF = {
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    # Kept for a UI that nobody opens: by default a thousand of each, for weeks.
    "spark.ui.retainedJobs": "50",
    "spark.ui.retainedStages": "50",
    "spark.ui.retainedTasks": "1000",
    "spark.sql.ui.retainedExecutions": "50",
    "spark.connect.ui.retainedSessions": "10",
    "spark.connect.ui.retainedStatements": "50",
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
    # Tables are external at fixed places, so the catalog is rebuilt from the lake at any start: no metastore to break.
    "spark.sql.catalogImplementation": "in-memory",
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.ansi.enabled": "true",
    # An error is one sentence; the stack trace stays in the server's log.
    "spark.sql.connect.serverStacktrace.enabled": "false",
    "spark.sql.pyspark.jvmStacktrace.enabled": "false",
    # Both default to numbers for a cluster (200, 50), which on two cores is all overhead.
    "spark.sql.shuffle.partitions": "2",
    "spark.databricks.delta.snapshotPartitions": "2",
    # A release names a version for ever: Delta would cut its log behind 30 days, and old versions could not be opened.
    "spark.databricks.delta.properties.defaults.enableExpiredLogCleanup": "false",
    "spark.databricks.delta.properties.defaults.deletedFileRetentionDuration": KEEP_FILES,
    # A session that a killed command left is found again by whoever takes up its work, and cleared: see `session`.
    # Nobody comes back for a killed reader's: it goes after this time without a word from its client.
    "spark.connect.session.manager.defaultSessionTimeout": "2h",
}


_own: tuple[Path, str] | None = None  # home and address of the private server that this process put into SPARK_REMOTE


def session(writer: str | None = None) -> SparkSession:
    """The Spark session of this process. Raises ServiceUnavailable within seconds when the server cannot be had.

    `writer` names the one stage that writes through it. A statement outlives the client that sent it: on the private
    server all commands of a writer share one session, and what a killed one left at work is stopped first.
    """
    from pyspark.sql import SparkSession

    if settings().spark_in_process:
        return _in_process()
    remote = _remote()
    os.environ["SPARK_REMOTE"] = remote  # dbt and Feast build their session themselves and find it here
    from pyspark.errors.exceptions.connect import SparkConnectGrpcException

    logging.getLogger("SQLQueryContextLogger").setLevel(logging.CRITICAL)  # it repeats every error, with the whole plan
    warnings.filterwarnings("ignore", message=".*RETRIES_EXCEEDED", category=UserWarning)  # the error tells it too
    active = SparkSession.getActiveSession()
    if active is not None:
        try:
            active.sql("SELECT 1").collect()
            return active
        except SparkConnectGrpcException:  # a server that went away, or came back as another one
            active.release_session_on_close = False
            active.stop()
    ours = writer if _own == (settings().home, remote) else None
    os.environ["SPARK_CONNECT_RELEASE_SESSION_ON_EXIT"] = "false" if ours else "true"  # a released id is used up
    try:
        try:
            spark = _opened(remote + _session_id(ours), writer)
        except SparkConnectGrpcException as error:
            if ours is None or "SESSION_CLOSED" not in str(error):
                raise
            _session_path(ours).unlink(missing_ok=True)  # it was idle for too long, and nothing runs in it any more
            spark = _opened(remote + _session_id(ours), writer)
    except SparkConnectGrpcException as error:
        told = [line.strip() for line in str(error).splitlines()]
        why = next((line for line in told if line.startswith("details")), told[0])
        where = remote.partition(";")[0]
        raise ServiceUnavailable(f"Spark Connect at {where} refused a session: {why}") from None
    _refuse_losing_commits(spark)
    return spark


def _refuse_losing_commits(spark: SparkSession) -> None:
    """Raises ServiceUnavailable when a server of yours would write to S3 with Delta's own log store."""
    if s3.holds(settings().lake_uri) and spark.conf.get(s3.LOG_STORE_CONF, None) != s3.LOG_STORE:
        spark.stop()
        raise ServiceUnavailable(
            f"the Spark server in SPARK_REMOTE has no {s3.LOG_STORE_CONF}={s3.LOG_STORE}: with Delta's own log store "
            f"it loses commits to {settings().lake_uri}; start it with that and the jars that `make setup` laid into "
            f"{settings().cache / 'jars'}"
        )


def _remote() -> str:
    """sc://… of the server: the one that SPARK_REMOTE names, else the private one, wherever it is now."""
    global _own
    given = os.environ.get("SPARK_REMOTE")
    if given and _own != (settings().home, given):
        return given
    _own = (settings().home, server_url())
    return _own[1]


def _opened(remote: str, writer: str | None) -> SparkSession:
    from pyspark.sql import SparkSession

    spark = SparkSession.builder.remote(remote).getOrCreate()
    _retry_briefly(spark)
    try:
        if writer:
            spark.interruptAll()
        spark.sql("SELECT 1").collect()
    except BaseException:
        spark.release_session_on_close = False
        spark.stop()  # or the next one would be this one again
        raise
    return spark


def _session_id(writer: str | None) -> str:
    """The part of an address that names the session in which all commands of a writer work, one after the other."""
    if writer is None:
        return ""
    path = _session_path(writer)
    if not path.exists():
        files.write_whole(path, str(uuid.uuid4()))
    return f";session_id={path.read_text()}"


def _session_path(writer: str) -> Path:
    return settings().home / "spark" / f"session-{writer}"


def server_url() -> str:
    """sc://… of the private server, started when it does not run. Holds its token: never print it."""
    server = services.ensure_configured(
        services.Launch(
            name="spark",
            command=_command,
            env=_environment,
            ready=lambda port, token: services.listening(port),
            more=lambda: {"s3": s3.identity()} if s3.holds(settings().lake_uri) else {},
        )
    )
    return _url(server.port, server.token)


def jars() -> list[Path]:
    """The jars that Spark needs beside its own, as the bootstrap laid them into the cache."""
    found = sorted((settings().cache / "jars").glob("*.jar"))
    if not found:
        raise ServiceUnavailable(f"no jars in {settings().cache / 'jars'}: run `make setup` once")
    return found


def _conf() -> dict[str, str]:
    """The configuration of a Spark of ours. Raises ServiceUnavailable when it needs jars that are not there."""
    conf, classpath = dict(CONF), jars()
    if s3.holds(settings().lake_uri):
        s3.require_keys(settings().lake_uri)
        conf |= s3.spark_conf(_scratch())
        classpath += s3.spark_jars()
    return {
        **conf,
        **{f"spark.{where}.extraClassPath": ":".join(map(str, classpath)) for where in ("driver", "executor")},
        "spark.master": settings().spark_master,
        "spark.driver.memory": settings().spark_memory,
        "spark.local.dir": str(_scratch()),
        "spark.sql.warehouse.dir": str(settings().home / "spark" / "warehouse"),
    }


def _url(port: int, token: str) -> str:
    # "localhost", not 127.0.0.1: only for that name does the client send its token without TLS.
    return f"sc://localhost:{port}/;token={token}"


def serve(host: str, port: int) -> None:
    """Becomes a Spark Connect server for the lake in the settings, until SIGTERM, for all who name it in SPARK_REMOTE.

    It asks nobody who they are, and whoever reaches it may do with the lake what it may: its network must be closed.
    """
    for name, value in _environment(port, "").items():
        if value:
            os.environ[name] = value
        else:
            os.environ.pop(name, None)
    os.environ["SPARK_LOCAL_IP"] = host
    command = _command(port, "", host)
    os.execv(command[0], command)  # noqa: S606


def _command(port: int, token: str, host: str = services.HOST) -> list[str]:
    conf = {
        **_conf(),
        **_reached(host),
        "spark.connect.grpc.binding.address": host,
        "spark.connect.grpc.binding.port": str(port),
        "spark.driver.extraJavaOptions": f"{JAVA} -Djava.io.tmpdir={_scratch()}",
        "spark.sql.artifact.isolation.enabled": "false",
    }
    options = [part for key, value in conf.items() for part in ("--conf", f"{key}={value}")]
    return [str(spark_home() / "bin" / "spark-submit"), "--class", SERVER, *options, "spark-internal"]


def _reached(host: str) -> dict[str, str]:
    """Where executors on other machines find a driver that listens everywhere: at this one's own address."""
    if host != "0.0.0.0" or settings().spark_master.startswith("local"):  # noqa: S104
        return {}
    return {"spark.driver.bindAddress": host, "spark.driver.host": socket.gethostbyname(socket.gethostname())}


def _environment(port: int, token: str) -> dict[str, str | None]:
    import sys

    return {
        "JAVA_HOME": str(java.java_home()),
        "SPARK_HOME": str(spark_home()),
        "SPARK_LOCAL_IP": services.HOST,
        "SPARK_WORKER_DIR": str(_scratch() / "work"),  # what a worker of local-cluster keeps
        "SPARK_CONF_DIR": str(ROOT / "plumbline" / "lake" / "conf"),
        "PYSPARK_PYTHON": sys.executable,
        "SPARK_CONNECT_AUTHENTICATE_TOKEN": token,
        "SPARK_REMOTE": None,  # with it the server takes itself for a client and refuses to start
        "SPARK_CONNECT_MODE_ENABLED": None,  # left by a client to the processes that it starts: they would be clients
    }


def _in_process() -> SparkSession:
    from pyspark.sql import SparkSession

    os.environ["SPARK_SUBMIT_OPTS"] = f"{JAVA} -Dplumbline.log=off"  # what ends the command says so itself
    for name, value in _environment(0, "").items():
        if value:
            os.environ[name] = value
        else:
            os.environ.pop(name, None)
    builder = SparkSession.builder.appName("plumbline")
    for key, value in _conf().items():
        builder = builder.config(key, value)
    return builder.getOrCreate()


def _retry_briefly(spark: SparkSession) -> None:
    from pyspark.sql.connect.client.retries import DefaultPolicy

    client = spark.client
    client.set_retry_policies([DefaultPolicy(max_retries=5, initial_backoff=100, max_backoff=2000)])


def _scratch() -> Path:
    scratch = settings().home / "spark" / "scratch"
    scratch.mkdir(parents=True, exist_ok=True)
    return scratch


def spark_home() -> Path:
    """The folder of the installed pyspark: its bin and jars."""
    import importlib.util

    spec = importlib.util.find_spec("pyspark")
    if spec is None or spec.origin is None:
        raise ServiceUnavailable("pyspark is not installed here: run `make setup` once")
    return Path(spec.origin).parent
