"""Pictures in a zip or tar archive, with a labels.csv in it. Nothing is unpacked to disk.

An archive is looked through before anything of it lands. One that could write elsewhere (a path with .., a link), hold
two files of a name, or unpack to more than the limits, is refused whole.
"""

from __future__ import annotations

import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from lzma import LZMAError
from pathlib import Path, PurePosixPath

from ingestion.images.folders import refuse_large, refuse_unreadable_name
from ingestion.images.labels_file import NAME, Labels
from ingestion.images.sources import Item, SourceError

MOST_MEMBERS = 2_000_000
MOST_BYTES = 64 * 2**30
"""What an archive may unpack to, in all."""

HEADERS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
MOST_HEADER_BYTES = 2**20


def in_archive(path: Path) -> Iterator[Item]:
    """The pictures of a zip, in the order of their names, or of a tar, in its own. Raises SourceError."""
    if zipfile.is_zipfile(path):
        yield from _zip(path)
    elif _is_tar(path):
        yield from _tar(path)
    else:
        raise SourceError(f"{path} is neither a zip nor a tar archive: expected one, or a folder, with {NAME}")


class _Members:
    """The names of an archive's files, checked one by one as they come; `labels` is the one labels.csv among them."""

    def __init__(self, path: Path) -> None:
        self.path, self.bytes = path, 0
        self.names = set[str]()
        self.labels = ""

    def add(self, name: str, size: int, plain: bool) -> None:
        """One more file. Raises SourceError for one that makes the archive unfit."""
        where, parts = f"{self.path}, member {name!r}", PurePosixPath(name).parts
        if name.startswith(("/", "\\")) or ".." in parts or "\\" in name or "\0" in name or ":" in name[:3]:
            raise SourceError(f"{where}: its path leads out of the archive. Nothing was landed")
        refuse_unreadable_name(str(self.path), name)
        if not plain:
            raise SourceError(f"{where} is a link or a device: expected plain files. Nothing was landed")
        if name in self.names:
            raise SourceError(f"{where} is in the archive twice: which one counts is unknown. Nothing was landed")
        refuse_large(where, size)
        self.names.add(name)
        self.bytes += size
        if len(self.names) > MOST_MEMBERS or self.bytes > MOST_BYTES:
            raise SourceError(
                f"{self.path} unpacks to more than {MOST_MEMBERS:,} files or {MOST_BYTES:,} bytes: divide it. Nothing "
                "was landed"
            )
        if PurePosixPath(name).name == NAME:
            if self.labels:
                raise SourceError(f"{where}: {self.labels!r} is there too; expected one {NAME}")
            self.labels = name

    def read_labels(self, read: Callable[[str], bytes]) -> Labels:
        """The labels, when all files are known. Raises SourceError when a picture lies outside the labels' folder."""
        if not self.labels:
            raise SourceError(f"{self.path} holds no {NAME}: expected a file of the columns image,label")
        stray = [name for name in self.names if not name.startswith(self.root)]
        if stray:
            raise SourceError(f"{self.path}, member {min(stray)!r} is outside the folder of {self.labels!r}")
        labels = Labels(read(self.labels), f"{self.path}, {self.labels}")
        labels.refuse_absent({name.removeprefix(self.root) for name in self.names - {self.labels}})
        return labels

    @property
    def root(self) -> str:
        """The folder of labels.csv, with a slash at its end; empty for the top."""
        return self.labels.removesuffix(NAME)


def _zip(path: Path) -> Iterator[Item]:
    with _readable(path), zipfile.ZipFile(path) as archive:
        members = _Members(path)
        for info in archive.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            if info.flag_bits & 1:
                raise SourceError(f"{path}, member {info.filename!r} is encrypted: expected plain files")
            if not info.is_dir():
                members.add(info.filename, info.file_size, kind in (0, stat.S_IFREG))
        labels = members.read_labels(archive.read)
        for name in sorted(members.names - {members.labels}):
            inside = name.removeprefix(members.root)
            label, where = labels.of(inside)
            yield Item(inside, label, archive.read(name), where)


def _tar(path: Path) -> Iterator[Item]:
    members, read = _Members(path), dict[str, bytes]()
    with _readable(path), tarfile.open(path, tarinfo=_Info) as archive:
        for info in archive:
            if info.isdir():
                continue
            members.add(_plain(info.name), info.size, info.isreg() and not info.issparse())
            if _plain(info.name) == members.labels:
                read[members.labels] = _content(archive, info)
    labels = members.read_labels(read.__getitem__)
    with _readable(path), tarfile.open(path, tarinfo=_Info) as archive:
        for info in archive:
            name = _plain(info.name)
            if info.isdir() or name == members.labels:
                continue
            inside = name.removeprefix(members.root)
            label, where = labels.of(inside)
            yield Item(inside, label, _content(archive, info), where)


class _Info(tarfile.TarInfo):
    """A member's header that brings no more than MOST_HEADER_BYTES of further names: tarfile reads those into memory
    before anybody can look at them."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Info:
        """As tarfile's. Raises ReadError."""
        info = super().frombuf(buf, encoding, errors)
        if info.type in HEADERS and info.size > MOST_HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {info.size:,} bytes; up to {MOST_HEADER_BYTES:,}")
        return info


def _is_tar(path: Path) -> bool:
    """Whether it is a tar, packed or not. Raises SourceError for one that opens with a header that is a bomb."""
    try:
        with tarfile.open(path, tarinfo=_Info):
            return True
    except tarfile.ReadError as error:
        if "a header of" in str(error):
            raise SourceError(f"{path} cannot be read as an archive: {error}. Nothing was landed") from None
        return False


def _plain(name: str) -> str:
    return name.removeprefix("./")


def _content(archive: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(info)
    return file.read() if file else b""


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Says which archive it was when it cannot be read."""
    try:
        yield
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, LZMAError, NotImplementedError) as error:
        raise SourceError(f"{path} cannot be read as an archive: {error}. Nothing was landed: fetch it again") from None
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error}") from None
