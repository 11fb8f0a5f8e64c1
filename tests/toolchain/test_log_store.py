"""The log store is compiled without a JDK, to the same bytes each time, and only when its source changed."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from plumbline import s3
from plumbline.settings import settings
from toolchain import log_store
from toolchain.log_store import CompileError


@pytest.fixture
def other_cache(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with the jars of the real one, and no log store."""
    cache = tmp_path / "cache"
    cache.mkdir()
    for name in ("jars", "s3-jars", "compiler-jars"):
        (cache / name).symlink_to(settings().cache / name)
    monkeypatch.setenv("PLUMBLINE_CACHE", str(cache))
    settings.cache_clear()
    return cache


def test_the_same_source_gives_the_same_jar(other_cache: Path) -> None:
    jar = log_store.build()
    first, written = jar.read_bytes(), jar.stat().st_mtime_ns
    assert zipfile.ZipFile(jar).namelist() == ["plumbline/PutIfAbsentLogStore.class"]
    assert log_store.build().stat().st_mtime_ns == written
    jar.unlink()
    assert log_store.build().read_bytes() == first
    assert list(jar.parent.iterdir()) == [jar]


def test_a_source_that_does_not_compile_is_an_error_that_shows_where(
    other_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "PutIfAbsentLogStore.java"
    source.write_text(s3.LOG_STORE_SOURCE.read_text().replace("private static final int CONFLICT", "int int"))
    monkeypatch.setattr(s3, "LOG_STORE_SOURCE", source)
    with pytest.raises(CompileError, match=r"(?s)PutIfAbsentLogStore.java does not compile.*int int = 409"):
        log_store.build()
    assert not s3.log_store_jar().exists()


def test_without_a_compiler_it_says_what_to_run(other_cache: Path) -> None:
    (other_cache / "compiler-jars").unlink()
    with pytest.raises(CompileError, match="no Java compiler in .*: run `make setup` again"):
        log_store.build()
