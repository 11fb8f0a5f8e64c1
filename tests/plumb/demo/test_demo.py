from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from plumb.demo import demo
from plumbline import clock
from plumbline.settings import settings, settings_file
from plumbline.state import releases
from plumbline.state.releases import Release
from serving.client import DemoError


def test_the_clock_follows_the_loaded_orders_and_other_settings_stay(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PLUMBLINE_NOW")
    home.mkdir()
    settings_file().write_text("PLUMBLINE_SPARK_MEMORY=1g\n")
    for until in (date(1997, 1, 5), date(1997, 1, 7)):
        settings.cache_clear()
        assert demo.load_shop(until) == until
        assert clock.now() == clock.end_of(until)
        assert clock.is_replay()
        assert settings().spark_memory == "1g"
    assert settings_file().read_text().count("PLUMBLINE_NOW") == 1
    assert settings_file().stat().st_mode & 0o777 == 0o600


def test_a_clock_that_the_environment_sets_is_left_alone(home: Path) -> None:
    demo.load_shop(date(1997, 1, 5))
    assert not settings_file().exists()


def test_a_clock_that_a_replay_moved_on_is_not_turned_back(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PLUMBLINE_NOW")
    releases.publish(Release(1, "churn", date(1997, 1, 7), None, {}, {}, "code", "lock", "run", "now"))
    with pytest.raises(DemoError, match="release 1 covers 1997-01-07 already.* a home of its own.*PLUMBLINE_HOME="):
        demo.demo(until=date(1997, 1, 5))
    assert not (home / "shop.sqlite").exists()
    assert not settings_file().exists()
    for until, day in ((date(1997, 1, 5), date(1997, 1, 7)), (date(1997, 1, 8), date(1997, 1, 8))):
        settings.cache_clear()
        assert demo.load_shop(until) == day
        assert clock.now() == clock.end_of(day)


def test_the_demo_does_not_load_into_your_shop(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLUMBLINE_SHOP_URL", f"sqlite:///{home}/mine.sqlite")
    settings.cache_clear()
    with pytest.raises(DemoError, match="PLUMBLINE_SHOP_URL is set"):
        demo.demo()
    assert not (home / "mine.sqlite").exists()


@pytest.mark.parametrize(
    ("until", "told"), [(date(1997, 2, 15), "no weekly snapshot up to 1996-11-17"), (date(1997, 9, 20), "270 days")]
)
def test_a_demo_too_short_for_a_model_is_refused_at_once(home: Path, until: date, told: str) -> None:
    with pytest.raises(DemoError, match=f"no model can be trained on the orders up to {until}: .*{told}"):
        demo.demo(until=until)
    assert not (home / "shop.sqlite").exists(), "nothing was run"
