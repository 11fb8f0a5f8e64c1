"""Kafka: the broker that `PLUMBLINE_KAFKA_URL` names, else a private one on loopback, which asks for a password.

The private broker is Apache Kafka in KRaft mode, its own controller, with one copy of everything: for a laptop and for
tests. It keeps its topics in the home, so one that was killed comes back with them.
"""

from __future__ import annotations

import base64
import re
import subprocess
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from plumbline import clock, files, java
from plumbline.errors import PlumblineError, ServiceUnavailable, SettingsError
from plumbline.servers import services
from plumbline.settings import settings

if TYPE_CHECKING:
    from confluent_kafka import KafkaError

NAME, USER = "kafka", "plumbline"
GROUP = "plumbline-order-events"
"""The consumer group of the order stream."""

EXPECTED = "expected kafka://HOST:PORT[,HOST:PORT…], or kafkas:// for TLS, with USER:PASSWORD@ for SASL PLAIN"
JAAS = "org.apache.kafka.common.security.plain.PlainLoginModule required"
HEAP = ("-Xms128m", "-Xmx512m", "-XX:+UseG1GC", "-XX:-UsePerfData")
REFUSED_WITHIN = 3.0
"""Seconds in which a broker that refuses a login says so."""

LOGGING = """\
rootLogger.level = warn
rootLogger.appenderRef.out.ref = out
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d{ISO8601} %p %c{1} %m%n
"""


@dataclass(frozen=True)
class Broker:
    """Where a broker is and how it lets us in. `servers` is host:port, by comma."""

    servers: str
    user: str | None
    password: str | None
    tls: bool

    @property
    def protocol(self) -> str:
        """Kafka's name for what is spoken."""
        return ("SASL_" if self.user else "") + ("SSL" if self.tls else "PLAINTEXT")

    def client(self) -> dict[str, str]:
        """Options of librdkafka's clients."""
        options = {"bootstrap.servers": self.servers, "security.protocol": self.protocol}
        if self.user is not None:
            options |= {"sasl.mechanism": "PLAIN", "sasl.username": self.user, "sasl.password": self.password or ""}
        return options

    def spark(self) -> dict[str, str]:
        """Options of Spark's source and sink."""
        options = {"kafka.bootstrap.servers": self.servers, "kafka.security.protocol": self.protocol}
        if self.user is not None:
            login = f"{JAAS} username={_quoted(self.user)} password={_quoted(self.password or '')};"
            options |= {"kafka.sasl.mechanism": "PLAIN", "kafka.sasl.jaas.config": login}
        return options


def broker(*, start: bool = True) -> Broker:
    """The broker; the private one is started unless `start` is False.

    Raises SettingsError for a URL that is none, ServiceUnavailable when the private broker does not run.
    """
    if settings().kafka_url is not None:
        return read(settings().kafka_url.get_secret_value())  # type: ignore[union-attr]
    server = services.ensure(_launch()) if start else services.find(NAME)
    if server is None:
        raise ServiceUnavailable("the private Kafka is not running: `plumb events produce` starts it")
    return Broker(f"{services.HOST}:{server.port}", USER, server.token, tls=False)


def read(url: str) -> Broker:
    """A broker of a URL. Raises SettingsError, which quotes nothing of a URL that may hold a password."""
    scheme, _, rest = url.partition("://")
    account, at, servers = rest.rpartition("@")
    user, colon, password = account.partition(":")
    hosts = [urlsplit(f"//{server}") for server in servers.rstrip("/").split(",")]
    try:
        named = all(host.hostname and host.port and not host.path for host in hosts)
    except ValueError:  # a port that is no number
        named = False
    if scheme not in ("kafka", "kafkas") or not named or bool(at) != bool(user and colon and password):
        raise SettingsError(f"PLUMBLINE_KAFKA_URL: {EXPECTED}")
    return Broker(servers.rstrip("/"), unquote(user) or None, unquote(password) or None, tls=scheme == "kafkas")


def failure(broker: Broker, error: KafkaError) -> PlumblineError:
    """What a client's error means for whoever runs the command: SettingsError where the broker refuses the login, for
    librdkafka tells a client only that time ran out; ServiceUnavailable for all else. Takes REFUSED_WITHIN at most."""
    from confluent_kafka.admin import AdminClient

    heard: list[KafkaError] = []
    options: dict[str, Any] = {**broker.client(), "log_level": 0, "error_cb": heard.append}
    client = AdminClient(options)
    deadline = clock.monotonic() + REFUSED_WITHIN
    while not heard and clock.monotonic() < deadline:
        client.poll(0.1)
    if any(one.code() == one._AUTHENTICATION for one in (error, *heard)):
        return SettingsError(
            f"Kafka at {broker.servers} refuses the login of {broker.user or 'nobody'}: "
            "see USER:PASSWORD in PLUMBLINE_KAFKA_URL"
        )
    return ServiceUnavailable(f"Kafka at {broker.servers} does not answer: {error.str()}")


def jars() -> str:
    """The class path of the broker. Raises ServiceUnavailable when its jars are not there."""
    folder = settings().cache / "kafka-jars"
    if not any(folder.glob("kafka_*.jar")):
        raise ServiceUnavailable(f"no jars of Kafka in {folder}: run `make setup` once")
    return f"{folder}/*"


def _launch() -> services.Launch:
    controller = services.free_port()
    return services.Launch(
        name=NAME,
        command=lambda port, token: _command(port, token, controller),
        ready=_answers,
        env=lambda port, token: {"KAFKA_OPTS": None, "CLASSPATH": None},
    )


def _command(port: int, token: str, controller: int) -> list[str]:
    folder = settings().home / "kafka"
    folder.mkdir(parents=True, exist_ok=True)
    config, logging = folder / "server.properties", folder / "log4j2.properties"
    files.write_whole(config, _properties(folder / "data", port, token, controller), mode=0o600)
    files.write_whole(logging, LOGGING)
    program = [
        f"{java.java_home()}/bin/java", *HEAP, f"-Dlog4j2.configurationFile={logging}", "-cp", jars()
    ]  # fmt: skip
    if not (folder / "data" / "meta.properties").exists():
        # Kafka's option parser takes an id that begins with a dash for an option.
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=").replace("-", "_")
        formatting = [*program, "kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(config)]
        done = subprocess.run(formatting, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ServiceUnavailable(f"Kafka cannot make its folder {folder / 'data'}: {done.stderr.strip()[-300:]}")
    return [*program, "kafka.Kafka", str(config)]


def _properties(data: Path, port: int, token: str, controller: int) -> str:
    """The broker's configuration: loopback alone, and a password between broker, controller and clients."""
    login = f'{JAAS} username="{USER}" password="{token}" user_{USER}="{token}";'
    lines = {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": f"1@{services.HOST}:{controller}",
        "listeners": f"CLIENTS://{services.HOST}:{port},CONTROLLER://{services.HOST}:{controller}",
        "advertised.listeners": f"CLIENTS://{services.HOST}:{port}",
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "CLIENTS",
        "listener.security.protocol.map": "CLIENTS:SASL_PLAINTEXT,CONTROLLER:SASL_PLAINTEXT",
        "sasl.enabled.mechanisms": "PLAIN",
        "sasl.mechanism.inter.broker.protocol": "PLAIN",
        "sasl.mechanism.controller.protocol": "PLAIN",
        "listener.name.clients.plain.sasl.jaas.config": login,
        "listener.name.controller.plain.sasl.jaas.config": login,
        "log.dirs": str(data),
        "num.partitions": "2",
        "auto.create.topics.enable": "false",
        "group.initial.rebalance.delay.ms": "0",
        **dict.fromkeys(
            (
                "offsets.topic.replication.factor",
                "transaction.state.log.replication.factor",
                "transaction.state.log.min.isr",
                "share.coordinator.state.topic.replication.factor",
                "share.coordinator.state.topic.min.isr",
            ),
            "1",
        ),
    }
    return "".join(f"{name}={value}\n" for name, value in lines.items())


def _answers(port: int, token: str) -> bool:
    """Whether the broker lets us in and leads each partition that it has: after a kill it takes them up one by one."""
    from confluent_kafka import KafkaException, TopicPartition
    from confluent_kafka.admin import AdminClient
    from confluent_kafka.admin._listoffsets import OffsetSpec

    if not services.listening(port):
        return False
    at = Broker(f"{services.HOST}:{port}", USER, token, tls=False)
    try:
        client = AdminClient({**at.client(), "log_level": 0})
        topics, latest = client.list_topics(timeout=5).topics, OffsetSpec.latest()  # type: ignore[no-untyped-call]
        ends = {TopicPartition(name, n): latest for name, topic in topics.items() for n in topic.partitions}
        for offset in client.list_offsets(ends, request_timeout=5).values() if ends else ():
            offset.result(5)
    except KafkaException:
        return False
    return True


def _quoted(text: str) -> str:
    """Text in a JAAS configuration."""
    return '"' + re.sub(r'(["\\])', r"\\\1", text) + '"'
