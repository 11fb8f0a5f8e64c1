"""A lake in a bucket of a real S3 server, and one Spark server that may write there."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from plumbline.servers import services
from plumbline.settings import settings
from tests.conftest import use_home
from tests.object_store import S3Server


def _stop_session() -> None:
    if "pyspark" in sys.modules:
        from pyspark.errors import PySparkException
        from pyspark.sql import SparkSession

        with suppress(PySparkException):  # there is none
            SparkSession.active().stop()


@pytest.fixture(scope="module")
def spark_s3_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The home of the one Spark server that this module's tests share."""
    home = tmp_path_factory.mktemp("spark-s3")
    _stop_session()  # of another module's server, which has no log store: a process has one session
    yield home
    _stop_session()  # one that outlives its server delays each later call of MLflow by seconds
    with pytest.MonkeyPatch.context() as patch:
        use_home(home, patch)
        services.stop_all()
    settings.cache_clear()


@pytest.fixture
def lake_in_s3(s3_server: S3Server, spark_s3_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The lake is in the bucket, below a prefix of its own: its s3://… URL."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "SPARK_"))]:
        monkeypatch.delenv(name)
    for name, value in s3_server.env.items():
        monkeypatch.setenv(name, value)
    url = s3_server.fresh_url()
    use_home(spark_s3_home, monkeypatch, lake=url)
    yield url
    monkeypatch.undo()
    settings.cache_clear()
