"""Binaries without root: what is fetched is what was pinned, and whoever has no apt is told how to get them."""

from __future__ import annotations

from pathlib import Path

import pytest

from toolchain import binaries
from toolchain.binaries import BinariesError

PACKAGE = "prometheus_2.42.0+ds-5+deb12u1_amd64.deb"


def test_both_makers_names_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLUMBLINE_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert binaries.missing() == ["prometheus", "promtool", "alertmanager", "amtool"]
    for place in (tmp_path / "bin" / "alertmanager", tmp_path / "binaries" / "amtool"):
        place.parent.mkdir()
        place.write_text("#!/bin/sh\n")
        place.chmod(0o755)
    assert binaries.find("alertmanager") == tmp_path / "bin" / "alertmanager"
    assert binaries.find("amtool") == tmp_path / "binaries" / "amtool"
    assert binaries.missing() == ["prometheus", "promtool"]


def test_without_apt_it_says_how_to_get_them_and_setup_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PLUMBLINE_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BinariesError, match="brew install prometheus alertmanager"):
        binaries.fetch()
    binaries.main()
    assert "Prometheus 2.42 and Alertmanager 0.25, or newer, are not on PATH" in capsys.readouterr().out


def test_a_package_that_is_not_the_pinned_one_is_refused(tmp_path: Path) -> None:
    package = tmp_path / PACKAGE
    package.write_bytes(b"something else")
    with pytest.raises(BinariesError, match=f"expected sha256 {binaries.PINNED[PACKAGE]}, found"):
        binaries.verify(package)


@pytest.mark.parametrize(
    ("name", "told"), [("prometheus_2.41.0_arm64.deb", "older than 2.42"), ("prometheus_2.53.3_arm64.deb", "")]
)
def test_another_version_has_to_be_new_enough(
    name: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if told:
        with pytest.raises(BinariesError, match=told):
            binaries.verify(tmp_path / name)
    else:
        binaries.verify(tmp_path / name)
        assert "apt's signature check alone" in capsys.readouterr().out


def test_a_path_that_stands_in_for_debians_is_as_long() -> None:
    for was, now in binaries.SHARED.values():
        assert len(was) == len(now)


def test_links_lead_to_the_pages_of_what_was_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLUMBLINE_CACHE", str(tmp_path))
    for part in ("share/web", "share/alertmanager"):
        (binaries.folder() / part).mkdir(parents=True)
    for name in binaries.SHARED:
        (binaries.folder() / name).write_text("")
        (binaries.folder() / name).chmod(0o755)
    for _ in range(2):
        binaries.share(tmp_path / "home")
    assert (tmp_path / "home/monitoring/prometheus-web").resolve() == binaries.folder() / "share/web"
    assert (tmp_path / "home/monitoring/alertmanager-template").resolve() == binaries.folder() / "share/alertmanager"
