"""Feast's private names are read anew when its version changes."""

from __future__ import annotations

from importlib.metadata import version

from feature_repo import feast_internals


def test_it_was_written_against_the_version_that_is_installed() -> None:
    assert version("feast") == feast_internals.VERSION, (
        "feature_repo/feast_internals.py uses names that Feast does not promise: "
        "read them in the new version, then change VERSION"
    )
