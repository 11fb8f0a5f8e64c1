from __future__ import annotations

import json
import os
import platform
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from plumbline.errors import ServiceUnavailable, SettingsError
from plumbline.servers import online_store, services
from plumbline.settings import settings
from products.churn import CHURN


def server(
    name: str = "toy", script: str = "import http.server,sys; http.server.test(port=int(sys.argv[1]), bind='127.0.0.1')"
) -> services.Launch:
    return services.Launch(
        name=name,
        command=lambda port, token: [sys.executable, "-c", script, str(port)],
        ready=lambda port, token: services.listening(port),
        timeout=20,
    )


def test_a_server_is_started_once_found_again_and_stopped(home: Path) -> None:
    first = services.ensure(server())
    assert services.ensure(server()) == first
    record = home / "toy.json"
    assert stat.S_IMODE(record.stat().st_mode) == 0o600
    assert services.stop_all() == ["toy"]
    assert not services.listening(first.port)
    assert services.find("toy") is None
    assert services.stop_all() == []


def test_a_killed_server_is_not_taken_for_a_running_one(home: Path) -> None:
    first = services.ensure(server())
    os.killpg(first.pid, signal.SIGKILL)
    os.waitpid(first.pid, 0)
    assert services.find("toy") is None
    second = services.ensure(server())
    assert second.pid != first.pid


NOTED = """
import signal
from plumbline.servers import services
signal.signal(signal.SIGTERM, lambda *_: print("told to end", flush=True))
with services.noted("toy", 4711):
    print("noted", flush=True)
    signal.pause()
"""


def test_a_command_that_leads_no_group_is_stopped_by_the_name_it_gave_itself(home: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", NOTED], stdout=subprocess.PIPE) as command:
        assert command.stdout is not None and command.stdout.readline() == b"noted\n"
        found = services.find("toy")
        assert found is not None and (found.pid, found.port) == (command.pid, 4711)
        assert services.stop("toy")
        assert command.stdout.read() == b"told to end\n"
    assert services.find("toy") is None


def test_a_server_that_was_started_stays_what_its_record_says(home: Path) -> None:
    with services.noted("toy", 1):
        with services.noted("toy", 2):
            found = services.find("toy")
            assert found is not None and found.port == 1
        assert services.find("toy") == found
    assert services.find("toy") is None


LEADERLESS = """
import ctypes, http.server, sys, threading
threading.Thread(target=http.server.test, kwargs={"port": int(sys.argv[1]), "bind": "127.0.0.1"}).start()
ctypes.CDLL(None).syscall(60, 0)  # exit: of this thread alone
"""


@pytest.mark.skipif(
    platform.system() != "Linux" or platform.machine() != "x86_64", reason="a system call by its number"
)
def test_a_server_runs_until_its_last_thread_has_ended(home: Path) -> None:
    first = services.ensure(server(script=LEADERLESS))
    assert Path(f"/proc/{first.pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    assert services.find("toy") == first
    assert services.stop("toy", grace=5)
    assert not services.listening(first.port)


def test_a_reused_pid_is_not_our_server(home: Path) -> None:
    services.ensure(server())
    record = home / "toy.json"
    ours = json.loads(record.read_text())
    record.write_text(json.dumps({**ours, "pid": os.getpid()}))
    assert services.find("toy") is None
    record.write_text(json.dumps(ours))


def test_a_server_that_ends_at_once_is_an_error_with_its_last_words(home: Path) -> None:
    with pytest.raises(ServiceUnavailable, match=r"(?s)toy ended on 127\.0\.0\.1.*no room"):
        services.ensure(server(script="raise SystemExit('no room')"))
    assert services.find("toy") is None


def test_a_private_redis_asks_for_its_password(home: Path) -> None:
    import redis

    client = online_store.client()
    address = client.connection_pool.connection_kwargs
    with pytest.raises(redis.AuthenticationError):
        redis.Redis(host=address["host"], port=address["port"]).ping()
    assert address["host"] == "127.0.0.1"


def test_the_wheels_redis_serves_where_there_is_none_on_path(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(online_store.shutil, "which", lambda name: None)
    assert online_store.client().info("server")["redis_version"].startswith("6.2")


def test_a_redis_url_is_told_to_feast_in_its_own_form(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Feast splits at commas, takes values for JSON where it can, and reads all of it from YAML."""
    from urllib.parse import quote

    from feast.infra.online_stores.redis import RedisOnlineStore

    from feature_repo.store import open_store

    for password in ("p@ss", "1234", "true", "a,db=9", 'q"u\\o #te: $HOME {x}'):
        url = f"rediss://app:{quote(password, safe='')}@cache.internal/2?ssl_ca_certs=/etc/ca.pem&socket_timeout=3"
        monkeypatch.setenv("PLUMBLINE_REDIS_URL", url)
        settings.cache_clear()
        nodes, options = RedisOnlineStore._parse_connection_string(
            open_store(CHURN).config.online_store.connection_string
        )
        assert nodes == [{"host": "cache.internal", "port": "6379"}]
        expected = {"username": "app", "password": password, "db": 2, "ssl": True}
        assert options == {**expected, "ssl_ca_certs": "/etc/ca.pem", "socket_timeout": 3.0}


@pytest.mark.parametrize("url", ["unix:///run/redis.sock", "http://cache", "redis://cache/0?db=two", "redis:///0"])
def test_a_redis_url_that_cannot_be_used_is_a_setting_to_mend(
    home: Path, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("PLUMBLINE_REDIS_URL", url)
    settings.cache_clear()
    with pytest.raises(SettingsError, match="PLUMBLINE_REDIS_URL"):
        online_store.client()


def test_an_option_that_redis_does_not_know_is_named(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLUMBLINE_REDIS_URL", "redis://:hunter2@127.0.0.1:1/0?tls=yes")
    settings.cache_clear()
    with pytest.raises(SettingsError, match="PLUMBLINE_REDIS_URL.*'tls'") as error:
        online_store.client()
    assert "hunter2" not in str(error.value)
