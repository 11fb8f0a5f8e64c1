from __future__ import annotations

from pathlib import Path

import pytest
from jinja2 import UndefinedError

from plumbline.display import figures, page


def test_what_goes_into_a_page_is_escaped(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "one.html").write_text(
        '{% extends "base.html" %}{% block title %}{{ name }}{% endblock %}{% block body %}{{ name }}{% endblock %}'
    )
    (tmp_path / "base.html").write_text((page.TEMPLATES / "base.html").read_text())
    monkeypatch.setattr(page, "TEMPLATES", tmp_path)
    text = page.write(home / "out" / "one.html", "one.html", name="<script>x</script>").read_text()
    assert "<script" not in text and "&lt;script&gt;" in text
    assert "1998-07-01 00:00 UTC" in text and "a replay" in text
    assert "http" not in text  # nothing is fetched from anywhere
    with pytest.raises(UndefinedError, match="name"):
        page.write(home / "out" / "two.html", "one.html")
    assert not (home / "out" / "two.html").exists()


def test_a_figure_in_a_page_follows_its_theme_and_is_the_same_in_every_run() -> None:
    def drawn() -> str:
        with figures.style() as pyplot:
            figure, axes = pyplot.subplots(figsize=(3, 2))
            axes.plot([1, 2], color=figures.MODEL)
            axes.set(title="A title that can be searched")
            text = figures.svg(figure, 'a "line" & more')
            pyplot.close(figure)
            return text

    text = drawn()
    assert f"var(--model, {figures.MODEL})" in text and "A title that can be searched" in text
    assert 'aria-label="a &quot;line&quot; &amp; more"' in text
    assert text.startswith("<svg") and "width=" not in text.partition(">")[0]
    assert text == drawn()


def test_every_role_has_a_colour_of_its_own_and_both_themes_know_it() -> None:
    assert len({color.light for color in figures.COLORS.values()}) == len(figures.COLORS)
    for role in figures.COLORS:
        assert f"--{role}:" in figures.variables(dark=False) and f"--{role}:" in figures.variables(dark=True)


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "–"), (float("nan"), "–"), (1234567, "1,234,567"), (3.0, "3"), (0.123456, "0.1235"), (12345.6, "12,346")],
)
def test_numbers_are_written_for_people(value: float | None, shown: str) -> None:
    assert page.number(value) == shown


def test_a_hash_or_commit_is_shortened_and_a_changed_tree_shown() -> None:
    assert page.short("sha256:2673717cd02f1901a9970") == "2673717cd02f"
    assert page.short("8d0ee59c5dd73e94904b-dirty.4eb76eb98b57") == "8d0ee59c5dd7+"
