from __future__ import annotations

from pathlib import Path

import pytest

from plumb.home import close_to_others
from plumbline import settings as module
from plumbline.errors import SettingsError
from plumbline.servers import online_store
from plumbline.settings import settings


def test_an_unknown_setting_is_refused_with_the_nearest_name(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLUMBLINE_REDIS_URI", "redis://localhost")
    settings.cache_clear()
    with pytest.raises(SettingsError, match="unknown setting PLUMBLINE_REDIS_URI: did you mean PLUMBLINE_REDIS_URL"):
        settings()


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("PLUMBLINE_NOW", "1998-07-01T00:00:00", "needs a time zone"),
        ("PLUMBLINE_NOW", "yesterday", "valid datetime"),
        ("PLUMBLINE_SPARK_MEMORY", "2 GB", "match pattern"),
        ("PLUMBLINE_DBT_UTILS", "online", "'offline' or 'hub'"),
    ],
)
def test_a_bad_value_names_the_variable_and_what_was_expected(
    home: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, told: str
) -> None:
    monkeypatch.setenv(name, value)
    settings.cache_clear()
    with pytest.raises(SettingsError, match=told) as error:
        settings()
    assert name in str(error.value)


def test_an_unknown_key_in_the_settings_file_is_refused(home: Path) -> None:
    home.mkdir()
    module.settings_file().write_text("PLUMBLINE_NWO=1998-07-01T00:00:00Z\n")
    settings.cache_clear()
    with pytest.raises(SettingsError, match="PLUMBLINE_NWO: Extra inputs are not permitted"):
        settings()
    module.settings_file().unlink()


def test_the_environment_wins_over_the_file(home: Path) -> None:
    home.mkdir()
    module.settings_file().write_text("PLUMBLINE_NOW=1997-01-01T00:00:00Z\n")
    settings.cache_clear()
    now = settings().now
    assert now is not None and now.year == 1998


def test_secrets_are_masked_wherever_settings_are_shown(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLUMBLINE_REDIS_URL", "redis://:hunter2@cache:6379/0")
    monkeypatch.setenv("PLUMBLINE_SHOP_URL", "postgresql://shop:hunter2@db/shop")
    monkeypatch.setenv("PLUMBLINE_MLFLOW_URL", "https://app:hunter2@mlflow.internal")
    settings.cache_clear()
    assert "hunter2" not in str(module.show())
    assert "https://***@mlflow.internal" in str(module.show())


def test_everything_lives_in_home_by_default(home: Path) -> None:
    assert settings().lake_uri == str(home / "lake")
    assert str(home) in settings().shop
    assert str(home) in settings().mlflow_uri


@pytest.mark.parametrize(
    ("more", "whole"),
    [
        ({}, False),
        ({"PLUMBLINE_MLFLOW_URL": "https://mlflow.internal"}, True),
        ({"PLUMBLINE_MLFLOW_URL": "postgresql+psycopg://db/mlflow"}, False),
        ({"PLUMBLINE_MLFLOW_URL": "postgresql+psycopg://db/mlflow", "PLUMBLINE_ARTIFACTS": "s3://shop/models"}, True),
    ],
)
def test_with_state_in_a_bucket_mlflow_is_outside_the_home_too(
    home: Path, monkeypatch: pytest.MonkeyPatch, more: dict[str, str], whole: bool
) -> None:
    for name, value in {"PLUMBLINE_STATE": "s3://shop/state", **more}.items():
        monkeypatch.setenv(name, value)
    settings.cache_clear()
    if whole:
        assert settings().state == "s3://shop/state"
        return
    with pytest.raises(SettingsError, match="PLUMBLINE_STATE outlives this home, so MLflow must too: set PLUMBLINE_ML"):
        settings()


@pytest.mark.parametrize("name", ["PLUMBLINE_REDIS_URL", "PLUMBLINE_MLFLOW_URL", "PLUMBLINE_SHOP_URL"])
@pytest.mark.parametrize("password", ["s3cret/x", "12/s3cret", "12?s3cret", "12#s3cret", "s3cret/a@b", "s3c:ret?x"])
def test_a_password_with_odd_characters_is_refused_and_never_shown(
    home: Path, monkeypatch: pytest.MonkeyPatch, name: str, password: str
) -> None:
    scheme = {"PLUMBLINE_REDIS_URL": "redis", "PLUMBLINE_MLFLOW_URL": "http"}.get(name, "postgresql")
    monkeypatch.setenv(name, f"{scheme}://user:{password}@host:6379/0")
    settings.cache_clear()
    with pytest.raises(SettingsError, match=f"{name}: .*holds an @ behind its host: percent-encode") as error:
        settings()
    assert not [part for part in ("s3c", "ret?", "cret", "user:") if part in str(error.value)]


@pytest.mark.parametrize("url", ["redis://host:s3cret", "redis://[s3cret", "redis://:s3cret@host:port/0", "s3cret://x"])
def test_a_redis_url_that_cannot_be_read_is_refused_without_its_parts(
    home: Path, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("PLUMBLINE_REDIS_URL", url)
    settings.cache_clear()
    with pytest.raises(SettingsError, match="PLUMBLINE_REDIS_URL") as error:
        online_store.client()
    assert "s3cret" not in str(error.value)


@pytest.mark.parametrize("login", ["user:s3cret", "user:a@s3cret", "s3cret", ":s3cret@"])
def test_settings_are_shown_without_any_part_of_a_login(
    home: Path, monkeypatch: pytest.MonkeyPatch, login: str
) -> None:
    monkeypatch.setenv("PLUMBLINE_MLFLOW_URL", f"http://{login}@host:5000")
    settings.cache_clear()
    assert module.show()["PLUMBLINE_MLFLOW_URL"] == "http://***@host:5000"


def test_a_home_is_this_users_alone_wherever_it_is(home: Path) -> None:
    home.mkdir(mode=0o755)
    close_to_others()
    assert home.stat().st_mode & 0o777 == 0o700
    home.chmod(0o2770)
    close_to_others()
    assert home.stat().st_mode & 0o7777 == 0o2770, "a volume that Kubernetes shares with a group"
