"""One rule for every engine: plain http is spoken to loopback, elsewhere only when that is allowed."""

from __future__ import annotations

from pathlib import Path

import pytest

from plumbline import s3
from plumbline.errors import SettingsError
from plumbline.settings import settings


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:9000", "http://[::1]:9000", "http://localhost:9000"])
def test_loopback_is_spoken_to_in_plain_http(endpoint: str) -> None:
    assert s3.may_speak_http(endpoint, "")


def test_plain_http_is_allowed_by_name() -> None:
    assert s3.may_speak_http("http://s3.example.org", "true")
    assert not s3.may_speak_http("https://s3.example.org", "true")
    assert not s3.may_speak_http(None, "")


@pytest.mark.parametrize(
    "endpoint", ["http://127.0.0.1.example.org", "http://localhost.example.org", "http://10.0.0.1", "http://s3"]
)
def test_a_server_elsewhere_is_refused(endpoint: str) -> None:
    with pytest.raises(SettingsError, match=rf"^AWS_ENDPOINT_URL={endpoint}: expected https://.*AWS_ALLOW_HTTP=true"):
        s3.may_speak_http(endpoint, "false")


def test_no_engine_speaks_plain_http_to_a_server_elsewhere(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """delta-rs and dlt ask for options, Spark for keys, MLflow for boto's region; state has a test of its own."""
    for name in s3.KEYS:
        monkeypatch.setenv(name, "a")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://s3.example.org")
    monkeypatch.setenv("PLUMBLINE_ARTIFACTS", "s3://bucket/artifacts")
    monkeypatch.delenv("AWS_ALLOW_HTTP", raising=False)
    settings.cache_clear()
    engines = (
        lambda: s3.delta_options("s3://bucket/lake/raw/orders"),
        lambda: s3.require_keys("s3://bucket/lake"),
        s3.settle_boto,
    )
    for engine in engines:
        with pytest.raises(SettingsError, match="expected https://"):
            engine()
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    assert (s3.delta_options("s3://bucket/lake/raw/orders") or {})["allow_http"] == "true"
