"""The same promises, held by files and by a bucket."""

from __future__ import annotations

import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from plumbline import clock
from plumbline.errors import Conflict, PlumblineError, SettingsError, Unreadable
from plumbline.settings import settings
from plumbline.state import objects

KEY = "releases/churn/000001.json"
WRITERS = 8
ROUNDS = {"files": 20, "bucket": 3}  # SeaweedFS lets the losers of a round wait for seconds


def _at_once(count: int, act: Callable[[int], object]) -> list[object]:
    """What each of `count` threads that start together returned, or the PlumblineError that it raised."""
    barrier, results = threading.Barrier(count), [None] * count

    def run(number: int) -> None:
        barrier.wait()
        try:
            results[number] = act(number)
        except PlumblineError as error:
            results[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


@pytest.mark.usefixtures("place")
def test_what_is_created_is_read_back_with_its_etag() -> None:
    assert objects.read(KEY) is None
    etag = objects.create(KEY, "größer — 日本 \U0001f980\r\n\x00")
    found = objects.read(KEY)
    assert found is not None
    assert (found.text, found.etag, found.where) == ("größer — 日本 \U0001f980\r\n\x00", etag, objects.where(KEY))
    objects.create("ledger/churn/empty.json", "")
    assert (found := objects.read("ledger/churn/empty.json")) is not None and found.content == b""


@pytest.mark.usefixtures("place")
def test_what_exists_is_not_created_again_even_with_the_same_content() -> None:
    objects.create(KEY, "first")
    for text in ("second", "first"):
        with pytest.raises(objects.Exists, match="releases/churn/000001.json exists already"):
            objects.create(KEY, text)
    with pytest.raises(FileExistsError):
        objects.create(KEY, "second")
    assert (found := objects.read(KEY)) is not None and found.text == "first"


@pytest.mark.parametrize("same", [False, True])
def test_of_many_that_create_at_once_one_wins(place: str, same: bool) -> None:
    for number in range(ROUNDS[place]):
        key = f"releases/churn/{number:06d}.json"
        results = _at_once(
            WRITERS, lambda writer, key=key: objects.create(key, f"writer {0 if same else writer}\n" * 50)
        )
        winners = [writer for writer, result in enumerate(results) if isinstance(result, str)]
        assert len(winners) == 1
        assert sum(isinstance(result, objects.Exists) for result in results) == WRITERS - 1
        assert (found := objects.read(key)) is not None
        assert found.text == f"writer {0 if same else winners[0]}\n" * 50


@pytest.mark.usefixtures("place")
def test_a_stale_etag_does_not_replace() -> None:
    first = objects.create(KEY, "1")
    second = objects.replace(KEY, "2", if_match=first)
    with pytest.raises(objects.Changed, match="000001.json was changed by another process since it was read"):
        objects.replace(KEY, "3", if_match=first)
    with pytest.raises(Conflict):
        objects.replace("releases/churn/000002.json", "3", if_match=first)
    assert (found := objects.read(KEY)) is not None and (found.text, found.etag) == ("2", second)
    assert objects.read("releases/churn/000002.json") is None


@pytest.mark.usefixtures("place")
def test_without_an_etag_it_is_overwritten_or_created() -> None:
    objects.replace(KEY, "1")
    etag = objects.replace(KEY, "2")
    assert (found := objects.read(KEY)) is not None and (found.text, found.etag) == ("2", etag)


def test_of_many_that_replace_the_same_version_one_wins(place: str) -> None:
    etag = objects.create(KEY, "0")
    for number in range(ROUNDS[place]):
        results = _at_once(
            WRITERS, lambda writer, etag=etag, number=number: objects.replace(KEY, f"{number} {writer}", etag)
        )
        winners = [writer for writer, result in enumerate(results) if isinstance(result, str)]
        assert len(winners) == 1
        found = objects.read(KEY)
        assert found is not None and found.text == f"{number} {winners[0]}"
        etag = found.etag


@pytest.mark.usefixtures("place")
def test_keys_come_in_order_below_a_folder_and_after_a_key() -> None:
    names = ["ledger/churn/2.json", "ledger/churn/10.json", "ledger/churn/é b+%#?.json", "ledger/churn/a/1.json"]
    for name in [*names, "ledger/churn-training/1.json", "ledger/images/1.json"]:
        objects.create(name, "{}")
    assert objects.keys("ledger/churn") == sorted(names)
    assert objects.keys("ledger/churn/") == sorted(names)
    assert objects.keys("ledger/churn", after="ledger/churn/10.json") == sorted(names)[1:]
    assert objects.keys("ledger/churn", after="ledger/churn/19") == sorted(names)[1:], "no object need be there"
    assert objects.keys("ledger/churn", after="ledger/churn/é b+%#?.json") == []
    assert objects.keys("ledger/none") == []
    assert objects.keys("ledger/churn/2.json") == [], "an object is no folder"


@pytest.mark.usefixtures("place")
def test_more_keys_than_a_page_of_a_listing_holds() -> None:
    names = [f"ledger/churn/{number:06d}.json" for number in range(1203)]
    for number in range(0, len(names), 100):
        batch = names[number : number + 100]
        _at_once(len(batch), lambda which, batch=batch: objects.create(batch[which], "{}"))
    assert objects.keys("ledger/churn") == names
    assert objects.keys("ledger/churn", after=names[99]) == names[100:]
    assert objects.keys("ledger/churn", after=names[1200]) == names[1201:]


@pytest.mark.usefixtures("place")
def test_five_megabytes_are_one_object() -> None:
    text = "0123456789abcdef" * (5 * 65536 + 1)
    etag = objects.create(KEY, text)
    with pytest.raises(objects.Exists):
        objects.create(KEY, text)
    objects.replace(KEY, text + "!", if_match=etag)
    assert (found := objects.read(KEY)) is not None and found.text == text + "!"


@pytest.mark.usefixtures("place")
def test_bytes_come_back_as_they_were_written() -> None:
    content = bytes(range(256))
    etag = objects.create_bytes("quarantine/churn/a..b#2/orders.parquet", content)
    found = objects.read("quarantine/churn/a..b#2/orders.parquet")
    assert found is not None and (found.content, found.etag) == (content, etag)
    assert abs((clock.wall() - found.written_at).total_seconds()) < 60
    objects.replace_bytes("quarantine/churn/a..b#2/orders.parquet", content[::-1], if_match=etag)
    assert (found := objects.read("quarantine/churn/a..b#2/orders.parquet")) and found.content == content[::-1]
    with pytest.raises(objects.Exists):
        objects.create_bytes("quarantine/churn/a..b#2/orders.parquet", content)


@pytest.mark.usefixtures("place")
def test_what_is_deleted_is_gone_and_may_be_created_again() -> None:
    objects.delete(KEY)
    objects.create(KEY, "1")
    objects.create("releases/churn/000002.json", "2")
    objects.delete(KEY)
    objects.delete(KEY)
    assert objects.read(KEY) is None and objects.keys("releases") == ["releases/churn/000002.json"]
    objects.create(KEY, "3")
    assert (found := objects.read(KEY)) is not None and found.text == "3"


def test_files_tell_when_a_folder_changed_and_a_bucket_does_not(place: str) -> None:
    assert objects.changed_at("releases/churn") is None
    objects.create(KEY, "1")
    first = objects.changed_at("releases/churn")
    assert (first is None) is (place == "bucket")
    assert objects.changed_at("releases/churn") == first


@pytest.mark.usefixtures("place")
def test_json_comes_back_as_it_was_written() -> None:
    assert objects.read_json(KEY) is None
    etag = objects.create_json(KEY, {"b": [1, None], "a": "é"})
    assert objects.read_json(KEY) == {"a": "é", "b": [1, None]}
    objects.replace_json(KEY, {"a": 2}, if_match=etag)
    assert objects.read_json(KEY) == {"a": 2}


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(
    ("text", "expected"), [("", "found no JSON: "), ('{"a": ', "found no JSON: "), ("[]", "found list")]
)
def test_what_is_no_json_object_is_named(text: str, expected: str) -> None:
    objects.create(KEY, text)
    with pytest.raises(Unreadable) as error:
        objects.read_json(KEY)
    assert str(error.value).startswith(f"{objects.where(KEY)}: expected a JSON object, {expected}")
    assert isinstance(error.value, ValueError)


@pytest.mark.parametrize("key", ["", "/a", "a//b", "../a", "a/./b", "a/.hidden", "a/b/"])
def test_a_key_that_is_no_path_below_the_home_is_refused(home: Path, key: str) -> None:
    with pytest.raises(ValueError, match="bad key"):
        objects.read(key)


def test_on_files_an_object_is_the_file_of_that_name_and_read_only_when_created_once(home: Path) -> None:
    objects.create_json(KEY, {"release_id": 1})
    objects.replace_json("runs/churn/1998-06-30.json", {})
    assert [path.name for path in (home / "runs" / "churn").iterdir()] == ["1998-06-30.json"]
    path = home / "releases" / "churn" / "000001.json"
    assert path.read_text() == '{\n  "release_id": 1\n}\n'
    assert stat.S_IMODE(path.stat().st_mode) == 0o444
    assert stat.S_IMODE((home / "runs" / "churn" / "1998-06-30.json").stat().st_mode) == 0o644
    assert objects.where(KEY) == str(path)
    (home / "releases" / "churn" / ".000002.json.x7").touch()
    assert objects.keys("releases/churn") == [KEY], "a file that is being written is no object yet"
    path.with_name("000003.json").write_bytes(b"\xff")
    with pytest.raises(Unreadable, match="000003.json: expected a JSON object, found no JSON"):
        objects.read_json("releases/churn/000003.json")
    with pytest.raises(Unreadable, match="000003.json: expected UTF-8"):
        _ = objects.read("releases/churn/000003.json").text  # type: ignore[union-attr]


@pytest.mark.parametrize("url", ["s3://", "s3:///prefix", "gs://bucket", "/var/state", "s3://b/a b", "s3://bucket//a"])
def test_a_place_that_is_no_bucket_is_a_bad_setting(home: Path, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("PLUMBLINE_STATE", url)
    settings.cache_clear()
    with pytest.raises(SettingsError, match="PLUMBLINE_STATE"):
        settings()


def test_files_need_no_library_for_buckets(home: Path) -> None:
    code = (
        "import sys; from plumbline.state import leases, objects; objects.read('a/b'); print('obstore' in sys.modules)"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout == "False\n"
