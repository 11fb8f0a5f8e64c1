"""The network's file: the same bytes whoever builds it, of a file of weights that is read and never run."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from plumbline import files
from plumbline.pictures import network
from plumbline.settings import settings
from toolchain import network as builder
from toolchain import torch_weights
from toolchain.network import NetworkBuildError
from toolchain.torch_weights import WeightsError


def test_the_network_is_the_one_whose_digest_is_pinned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLUMBLINE_CACHE", str(tmp_path))
    settings.cache_clear()
    try:
        place = builder.build()
        assert files.sha256(place.read_bytes()) == network.SHA256
        written = place.stat().st_mtime_ns
        assert builder.build().stat().st_mtime_ns == written, "it is left alone"
        place.write_bytes(b"half")
        assert files.sha256(builder.build().read_bytes()) == network.SHA256
        monkeypatch.setattr(builder, "WEIGHTS_SHA256", "0" * 64)
        place.unlink()
        with pytest.raises(NetworkBuildError, match="expected sha256 0{64}, found 5793"):
            builder.build()
    finally:
        settings.cache_clear()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"\x80\x02cposix\nsystem\n(X\x02\x00\x00\x00idtR.", "the file names posix system, expected collections"),
        (b"\x80\x02cbuiltins\neval\n.", "the file names builtins eval"),
        (b"\x80\x02(X\x01\x00\x00\x00aiposix\nsystem\n.", "the opcode INST"),
        (b"\x80\x02\x8a\x01\x07.\x80\x02M\xe9\x03.\x80\x02}.\x80\x02}.\x80\x02].", "expected torch's old format"),
    ],
)
def test_what_weights_do_not_need_is_refused(content: bytes, told: str) -> None:
    with pytest.raises(WeightsError, match=told):
        torch_weights.read(io.BytesIO(content))
