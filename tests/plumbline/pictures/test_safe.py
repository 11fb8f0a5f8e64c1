"""The bounds of the decoding processes: memory, time, a process that stops or dies, and what they are not given."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from plumbline.pictures import safe
from plumbline.pictures.decode import BadPicture, Limits
from plumbline.pictures.safe import DecoderError, Decoders
from plumbline.settings import ROOT
from tests.plumbline.pictures.malformed import encoded, png, rgb

GOOD = encoded(rgb(1), "PNG")


def large() -> bytes:
    """39 million transparent pixels in 150 kB."""
    side = 6_250
    return png(side, side, (b"\0" + bytes(side * 4)) * side, colours=6)


def test_a_picture_that_needs_more_memory_than_the_limit_is_refused_and_the_next_is_not() -> None:
    with Decoders(Limits(memory=400 * 2**20), children=1) as decoders:
        with pytest.raises(BadPicture, match="out_of_memory: more than 419,430,400 bytes"):
            decoders.cleaned(large())
        assert decoders.cleaned(GOOD).width == 40


def test_a_picture_that_takes_longer_than_the_limit_is_refused_and_the_next_is_not() -> None:
    with Decoders(Limits(seconds=0.05), children=1) as decoders:
        with pytest.raises(BadPicture, match="timeout: more than 0.05 s of CPU"):
            decoders.cleaned(large())
        assert decoders.cleaned(GOOD).width == 40


def test_a_file_above_the_limit_is_refused_before_it_goes_anywhere() -> None:
    with Decoders(Limits(bytes=100), children=1) as decoders:
        with pytest.raises(BadPicture, match="too_many_bytes: .* bytes; up to 100"):
            decoders.cleaned(GOOD)
        assert decoders._all[0].process is None


@pytest.mark.parametrize("sent", [signal.SIGSTOP, signal.SIGKILL])
def test_a_decoder_that_stops_or_is_killed_is_replaced_and_its_picture_is_decoded(sent: signal.Signals) -> None:
    with Decoders(Limits(seconds=0.1), children=1) as decoders:
        first = decoders.cleaned(GOOD)
        process = decoders._all[0].process
        assert process is not None
        os.kill(process.pid, sent)
        assert decoders.cleaned(GOOD) == first
        assert process.poll() == -signal.SIGKILL
        assert decoders._all[0].process is not process


def test_many_threads_share_few_decoders_and_each_gets_its_own_picture() -> None:
    pictures = [encoded(rgb(seed), "PNG") for seed in range(60)]
    with Decoders(children=2) as decoders, ThreadPoolExecutor(8) as threads:
        cleaned = list(threads.map(decoders.cleaned, pictures))
        assert len({one.sha256 for one in cleaned}) == 60
        assert [decoders.cleaned(picture).sha256 for picture in pictures] == [one.sha256 for one in cleaned]


def test_a_decoder_inherits_no_secret_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
    with Decoders(children=1) as decoders:
        decoders.cleaned(GOOD)
        process = decoders._all[0].process
        assert process is not None
        assert b"hush" not in Path(f"/proc/{process.pid}/environ").read_bytes()


def test_a_machine_that_allows_less_than_the_limits_is_no_fault_of_the_pictures() -> None:
    script = (
        "import resource; resource.setrlimit(resource.RLIMIT_CPU, (3000, 3000));"
        "from plumbline.pictures.safe import Decoders, Limits; from tests.plumbline.pictures.test_safe import GOOD;"
        "d = Decoders(Limits(seconds=5000), children=1); print(d.cleaned(GOOD).width); d.close()"
    )
    told = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert told.stdout == "40\n", told.stderr


def test_where_no_decoder_starts_no_picture_is_called_bad(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(safe, "ROOT", tmp_path)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with Decoders(children=1) as decoders:
        with pytest.raises(DecoderError, match="the decoder does not start"):
            decoders.cleaned(GOOD)


def test_decoders_end_when_the_process_that_uses_them_is_killed() -> None:
    script = (
        "import sys, time; from plumbline.pictures.safe import Decoders; d = Decoders(children=1);"
        "d.exif(b'x'); print(d._all[0].process.pid, flush=True); time.sleep(60)"
    )
    user = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert user.stdout is not None
    pid = int(user.stdout.readline())
    gone = os.pidfd_open(pid)
    user.kill()
    user.wait()
    user.stdout.close()
    assert select.select([gone], [], [], 30)[0]
    os.close(gone)
