"""SQLAlchemy's private names are read anew when its version changes."""

from __future__ import annotations

from importlib.metadata import version

from ingestion.database import sqlalchemy_internals


def test_it_was_written_against_the_version_that_is_installed() -> None:
    assert version("sqlalchemy") == sqlalchemy_internals.VERSION, (
        "ingestion/database/sqlalchemy_internals.py uses names that SQLAlchemy does not promise: "
        "read them in the new version, then change VERSION"
    )
