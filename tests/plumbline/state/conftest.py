"""Where state can be: in files below a home, and in a bucket of a real S3 server."""

from __future__ import annotations

import pytest


@pytest.fixture(params=["files", "bucket"])
def place(request: pytest.FixtureRequest) -> str:
    """This test's home is fresh, and its state is there: `files` or `bucket`."""
    request.getfixturevalue("home" if request.param == "files" else "bucket_state")
    return str(request.param)
