from __future__ import annotations

import stat
import threading
from pathlib import Path

import pytest

from plumbline import files
from plumbline.errors import Conflict


def test_of_many_that_create_the_same_file_one_wins(tmp_path: Path) -> None:
    path, won, barrier = tmp_path / "000001.json", [], threading.Barrier(8)

    def create(number: int) -> None:
        barrier.wait()
        try:
            files.create_once(path, str(number) * 1000)
            won.append(number)
        except FileExistsError:
            pass

    threads = [threading.Thread(target=create, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert path.read_text() == str(won[0]) * 1000
    assert list(tmp_path.iterdir()) == [path], "no temporary file stays behind"


def test_a_created_file_is_read_only_and_a_secret_one_is_its_owners(tmp_path: Path) -> None:
    files.create_once(tmp_path / "release.json", "{}")
    files.write_whole(tmp_path / "token.json", "{}", mode=0o600)
    assert stat.S_IMODE((tmp_path / "release.json").stat().st_mode) == 0o444
    assert stat.S_IMODE((tmp_path / "token.json").stat().st_mode) == 0o600


def test_a_lock_in_other_hands_says_whose(tmp_path: Path) -> None:
    with files.locked(tmp_path / "x.lock", wait=False):
        with pytest.raises(Conflict, match=r"churn is at work \(held by pid \d+\)"):
            with files.locked(tmp_path / "x.lock", wait=False, held="churn is at work"):
                pass
    with files.locked(tmp_path / "x.lock", wait=False):
        pass


def test_reading_what_is_not_there_gives_none(tmp_path: Path) -> None:
    assert files.read_json(tmp_path / "none.json") is None
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(ValueError, match="expected a JSON object, found list"):
        files.read_json(tmp_path / "list.json")


@pytest.mark.parametrize("content", [b"", b'{"a": ', b"\xff"])
def test_what_is_no_json_is_named(tmp_path: Path, content: bytes) -> None:
    bad = tmp_path / "bad.json"
    bad.write_bytes(content)
    with pytest.raises(ValueError, match=f"^{bad}: expected a JSON object, found no JSON: "):
        files.read_json(bad)
