"""What each kind of source gives, and the message where it is not what it should be."""

from __future__ import annotations

import io
import os
import re
import shutil
import stat
import tarfile
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from ingestion.images import archives, folders, packaged, sources
from ingestion.images.sources import SourceError
from plumbline.settings import settings
from tests.plumbline.pictures.malformed import encoded, rgb

PICTURES = {f"{kind}/{seed}.png": encoded(rgb(seed), "PNG") for seed, kind in enumerate(("cat", "cat", "dog"))}
LABELS = "image,label\ncat/0.png,cat\ncat/1.png,cat\ndog/2.png,dog\n"
EXPECTED = [(name, name[:3], content) for name, content in sorted(PICTURES.items())]

Files = dict[str, bytes]


def laid(folder: Path, files: Files) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def zipped(folder: Path, files: Files) -> Path:
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / "set.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return folder / "set.zip"


def tarred(folder: Path, files: Files) -> Path:
    folder.mkdir(exist_ok=True)
    with tarfile.open(folder / "set.tar.gz", "w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return folder / "set.tar.gz"


def taken(source: object) -> list[tuple[str, str | None, bytes]]:
    return [(item.name, item.label, item.content) for item in sources.opened(str(source))]


KINDS = pytest.mark.parametrize("place", [laid, zipped, tarred])


@KINDS
def test_pictures_come_with_the_labels_beside_them(place: type, tmp_path: Path) -> None:
    source = place(tmp_path / "set", {**PICTURES, "labels.csv": LABELS.encode()})
    assert sorted(taken(source)) == EXPECTED
    assert {item.where for item in sources.opened(str(source))} == {
        f"{source}{'/' if place is laid else ', '}labels.csv, row {row}" for row in (2, 3, 4)
    }


@pytest.mark.parametrize("place", [zipped, tarred])
def test_an_archive_may_hold_all_in_one_folder(place: type, tmp_path: Path) -> None:
    files = {f"my set/{name}": content for name, content in {**PICTURES, "labels.csv": LABELS.encode()}.items()}
    assert sorted(taken(place(tmp_path / "set", files))) == EXPECTED


@KINDS
def test_a_picture_without_a_row_has_no_label(place: type, tmp_path: Path) -> None:
    source = place(tmp_path / "set", {**PICTURES, "labels.csv": b"image,label\n"})
    assert [label for _, label, _ in taken(source)] == [None] * 3


@KINDS
@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (b"image,kind\n", r"labels\.csv, row 1: expected the columns image, label, .*found \['image', 'kind'\]"),
        (b"image;label\n", r"labels\.csv, row 1: expected .* divided by commas; found \['image;label'\]"),
        (b"", r"labels\.csv, row 1: expected the columns image, label, .*found \[\]"),
        (b"image,label\ncat/0.png,\n", r"labels\.csv, row 2, column label: empty; leave the row out"),
        (b"image,label\n,cat\n", r"labels\.csv, row 2, column image: empty"),
        (b"image,label\ncat/0.png\n", r"labels\.csv, row 2, column label: empty"),
        (b"image,label\ncat/9.png,cat\n", r"row 2, column image: 'cat/9\.png' \(labelled 'cat'\) is not there; .* 3"),
        (b"image,label\n../cat.png,cat\n", r"row 2, column image: '\.\./cat\.png': expected a path beside"),
        (b"image,label\n/etc/passwd,cat\n", r"row 2, column image: '/etc/passwd': expected a path beside"),
        (LABELS.encode() + b"dog/2.png,cat\n", r"row 5, column image: 'dog/2.png' stands in row 4 too, .*'dog'; here"),
        (b"image,label\ncat/0.png,caf\xe9\n", r"row 2: expected UTF-8, found the byte 0xe9"),
        (b'image,label\ncat/0.png,"cat\n', r"row \d: unexpected end of data"),
        (b"image,label\ncat/0.png," + b"x" * 201, r"row 2, column label: 'x+' has 201 characters; expected 1 to 200"),
        (b"image,label\ncat/0.png,cat, big\n", r"row 2: 3 values in 2 columns, too many by \[' big'\]; a comma in a"),
        (b"image,label,label\ncat/0.png,cat,dog\n", r"the column label stands there twice, in \['image', 'label', 'l"),
        (b'image,label\ncat/0.png,"c\nat"\n', r"column label: 'c\\nat' holds the character '\\n'; expected a line"),
    ],
)
def test_a_bad_row_of_labels_is_named(place: type, labels: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=message):
        taken(place(tmp_path / "set", {**PICTURES, "labels.csv": labels}))


def test_two_spellings_of_an_accent_are_one_label(tmp_path: Path) -> None:
    labels = "image,label\ncat/0.png,caf\u00e9\ncat/1.png,cafe\u0301\n"
    source = laid(tmp_path / "set", {**PICTURES, "labels.csv": labels.encode()})
    assert [label for _, label, _ in taken(source)] == ["caf\u00e9", "caf\u00e9", None]


@KINDS
def test_a_set_without_labels_is_refused(place: type, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"labels\.csv.*expected a file of the columns image,label"):
        taken(place(tmp_path / "set", PICTURES))


@pytest.mark.parametrize("place", [zipped, tarred])
@pytest.mark.parametrize("name", ["../out.png", "/etc/out.png", "a/../../out.png", "C:/out.png", "..\\out.png"])
def test_an_archive_that_leads_out_of_itself_is_refused_whole(place: type, name: str, tmp_path: Path) -> None:
    source = place(tmp_path / "set", {**PICTURES, name: b"x", "labels.csv": LABELS.encode()})
    with pytest.raises(SourceError, match=re.escape(repr(name)) + ": its path leads out of the archive"):
        taken(source)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_a_tar_with_a_link_or_a_device_is_refused(kind: bytes, tmp_path: Path) -> None:
    source = tmp_path / "set.tar"
    with tarfile.open(source, "w") as archive:
        info = tarfile.TarInfo("cat/0.png")
        info.type, info.linkname = kind, "/etc/passwd"
        archive.addfile(info)
    with pytest.raises(SourceError, match="member 'cat/0.png' is a link or a device"):
        taken(source)


def test_a_zip_with_a_link_is_refused(tmp_path: Path) -> None:
    info = zipfile.ZipInfo("cat/0.png")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(SourceError, match="member 'cat/0.png' is a link or a device"):
        taken(tmp_path / "set.zip")


def test_a_folder_with_a_link_or_a_pipe_is_refused(tmp_path: Path) -> None:
    folder = laid(tmp_path / "set", {"labels.csv": b"image,label\n"})
    (folder / "a.png").symlink_to("/etc/passwd")
    with pytest.raises(SourceError, match=r"a\.png is a symbolic link: it may lead anywhere"):
        taken(folder)
    (folder / "a.png").unlink()
    os.mkfifo(folder / "a.png")
    with pytest.raises(SourceError, match=r"a\.png is no plain file"):
        taken(folder)


@pytest.mark.parametrize("at", [0, 1])
@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_tar_whose_header_is_a_bomb_is_refused_before_it_is_read(kind: bytes, at: int, tmp_path: Path) -> None:
    source = tmp_path / "set.tar.gz"
    with tarfile.open(source, "w:gz") as archive:
        for _ in range(at):
            archive.addfile(tarfile.TarInfo("a.png"))
        info = tarfile.TarInfo("x")
        info.type, info.size = kind, 2**32
        assert archive.fileobj is not None
        archive.fileobj.write(info.tobuf(tarfile.USTAR_FORMAT))
    with pytest.raises(SourceError, match=r"a header of 4,294,967,296 bytes; up to 1,048,576"):
        taken(source)


def test_a_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    folder = laid(tmp_path / "set", {"labels.csv": b"image,label\n"})
    (folder / os.fsdecode(b"caf\xe9.png")).write_bytes(b"x")
    with pytest.raises(SourceError, match=r"no UTF-8: b'caf\\xe9\.png'\. Rename it"):
        taken(folder)
    with tarfile.open(tmp_path / "set.tar", "w") as archive:
        archive.add(folder, "")
    with pytest.raises(SourceError, match=r"no UTF-8: b'caf\\xe9\.png'\. Rename it"):
        taken(tmp_path / "set.tar")


@pytest.mark.parametrize("place", [zipped, tarred])
def test_an_archive_is_refused_by_what_it_would_unpack_to(
    place: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = place(tmp_path / "set", {"a.png": bytes(50_000), "b.png": bytes(50_000), "labels.csv": b"image,label\n"})
    assert source.stat().st_size < 2_000
    assert len(taken(source)) == 2
    with monkeypatch.context() as patch:
        patch.setattr(archives, "MOST_BYTES", 90_000)
        with pytest.raises(SourceError, match="unpacks to more than .* 90,000 bytes"):
            taken(source)
    with monkeypatch.context() as patch:
        patch.setattr(archives, "MOST_MEMBERS", 2)
        with pytest.raises(SourceError, match="unpacks to more than 2 files"):
            taken(source)


def test_a_file_that_no_picture_is_as_large_as_is_refused(tmp_path: Path) -> None:
    folder = laid(tmp_path / "set", {"labels.csv": b"image,label\n"})
    with (folder / "a.png").open("wb") as file:
        file.truncate(folders.LARGEST_BYTES + 1)
    with pytest.raises(SourceError, match=r"a\.png has more than 268,435,456 bytes"):
        taken(folder)


@pytest.mark.parametrize("place", [zipped, tarred])
def test_two_members_of_one_name_are_refused(place: type, tmp_path: Path) -> None:
    source = place(tmp_path / "set", PICTURES)
    if place is zipped:
        with zipfile.ZipFile(source, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("cat/0.png", b"another")
    else:
        with tarfile.open(source, "w:gz") as tar:
            for _ in range(2):
                tar.addfile(tarfile.TarInfo("cat/0.png"))
    with pytest.raises(SourceError, match=r"member 'cat/0\.png' is in the archive twice"):
        taken(source)


@pytest.mark.parametrize("place", [zipped, tarred])
@pytest.mark.parametrize("share", [0.3, 0.95])
def test_an_archive_that_is_cut_is_refused_by_its_name(place: type, share: float, tmp_path: Path) -> None:
    source = place(tmp_path / "set", {**PICTURES, "labels.csv": LABELS.encode()})
    content = source.read_bytes()
    source.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(SourceError, match=re.escape(str(source))):
        taken(source)


def test_a_zip_whose_members_do_not_match_their_checksum_is_refused(tmp_path: Path) -> None:
    source = zipped(tmp_path / "set", {**PICTURES, "labels.csv": LABELS.encode()})
    content = bytearray(source.read_bytes())
    content[100] ^= 0xFF
    source.write_bytes(content)
    with pytest.raises(SourceError, match=r"set\.zip cannot be read as an archive"):
        taken(source)


@pytest.mark.parametrize("source", ["", "mnits", "mnist:0", "mnist:-3", "mnist:many", "emoji:", "/no/such/place"])
def test_what_is_no_source_is_told_what_would_be_one(source: str) -> None:
    with pytest.raises(SourceError, match=re.escape(f"source {source!r}: expected mnist or emoji")):
        taken(source)


def test_a_file_that_is_no_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "set.zip").write_text("no archive")
    with pytest.raises(SourceError, match="neither a zip nor a tar"):
        taken(tmp_path / "set.zip")


def test_emoji_have_ten_labels_and_names_that_tell_their_base() -> None:
    if not (settings().cache / "emoji" / packaged.EMOJI_FILE).exists() and shutil.which("npm") is None:
        pytest.skip("neither the package nor npm is here")
    every = list(packaged.emoji())
    assert (len(every), len({item.label for item in every})) == (3786, 10)
    bases = Counter(item.name.partition("/")[0] for item in every)
    assert sum(count - 1 for count in bases.values()) == 1875
    assert Counter(item.label for item in packaged.emoji(40)) == dict.fromkeys({item.label for item in every}, 4)


def test_a_package_with_other_bytes_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLUMBLINE_CACHE", str(tmp_path))
    settings.cache_clear()
    laid(tmp_path, {f"emoji/{packaged.EMOJI_FILE}": b"something else"})
    with pytest.raises(SourceError, match=r"16\.0\.0\.tgz: sha256 .*, expected f64a530c"):
        next(packaged.emoji())


def test_digits_are_the_wheels_own_pixels_and_are_five_hundred_of_each() -> None:
    from plumbline.pictures import decode

    every = list(packaged.mnist())
    assert Counter(item.label for item in every) == dict.fromkeys("0123456789", 500)
    by_name = {item.name: decode.decoded(item.content).rgb for item in every}
    assert (np.stack(list(by_name.values())).shape) == (5000, 28, 28, 3)
    assert by_name["mnist-0001.png"][:, :, 0].sum() == first_row_sum()


def first_row_sum() -> int:
    import gzip

    with gzip.open(packaged._in_wheel(packaged.MNIST_WHEEL, packaged.MNIST_FILE), "rt") as file:
        return sum(map(int, next(file).split(",")[:-1]))
