from __future__ import annotations

from pathlib import Path

import pytest

from plumbline import settings as module
from plumbline.errors import SettingsError
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
