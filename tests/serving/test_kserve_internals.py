"""KServe's private names are read anew when its version changes."""

from __future__ import annotations

from importlib.metadata import version

from serving import kserve_internals


def test_it_was_written_against_the_version_that_is_installed() -> None:
    assert version("kserve") == kserve_internals.VERSION, (
        "serving/kserve_internals.py uses names that KServe does not promise: "
        "read them in the new version, then change VERSION"
    )
