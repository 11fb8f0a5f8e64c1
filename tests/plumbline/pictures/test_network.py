"""The network is a real one, and a picture's embedding is the same bits however it is asked for."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from plumbline.pictures import network, preprocess
from plumbline.pictures.network import Network, NetworkError
from plumbline.pictures.preprocess import VERSIONS, PreprocessError
from plumbline.settings import settings

CLASSES = {"china.jpg": {832, 538, 698}, "flower.jpg": {985, 308, 309, 723}}
"""ImageNet's classes that a person would take: stupa, dome, palace; daisy and what sits on flowers."""


def samples() -> dict[str, Any]:
    from sklearn.datasets import load_sample_images

    found = load_sample_images()
    return {Path(name).name: image for name, image in zip(found.filenames, found.images, strict=True)}


def test_it_sees_what_is_on_real_photographs() -> None:
    loaded = Network()
    for name, photograph in samples().items():
        best = loaded.logits(preprocess.preprocess(photograph, "v1")[None])[0].argsort()[::-1][:3]
        assert CLASSES[name] & set(best.tolist()), f"{name}: {best}"


@pytest.mark.parametrize("version", VERSIONS)
def test_neither_batch_nor_callers_at_once_change_a_bit(version: str) -> None:
    random = np.random.default_rng(14)
    pictures = [random.integers(0, 256, (24 + at, 40, 3), np.uint8) for at in range(9)]
    batch = np.stack([preprocess.preprocess(picture, version) for picture in pictures])
    loaded = Network()
    alone = np.concatenate([loaded.embed(batch[at : at + 1]) for at in range(9)])
    assert alone.shape == (9, network.SIZE) and np.isfinite(alone).all()
    assert len({row.tobytes() for row in alone}) == 9, "other pictures, other embeddings"
    with ThreadPoolExecutor(4) as callers:
        for size in (1, 2, 4, 9):
            batches = [batch[at : at + size] for at in range(0, 9, size)] * 3
            again = np.concatenate(list(callers.map(loaded.embed, batches))).reshape(3, 9, -1)
            assert all(one.tobytes() == alone.tobytes() for one in again), f"batches of {size}"


def test_a_picture_keeps_its_shape_and_gets_grey_around_it() -> None:
    wide = np.full((10, 40, 3), 255, np.uint8)
    wide[:, :, 0] = 0
    prepared = preprocess.preprocess(wide, "v1")
    assert prepared.shape == (3, 224, 224) and prepared.dtype == np.float32
    assert (prepared[:, :84] == 0).all() and (prepared[:, 140:] == 0).all(), "224 x 56 in the middle"
    assert (prepared[0, 84:140] == -127 / 128).all() and (prepared[1:, 84:140] == 1).all()
    thin = preprocess.preprocess(np.full((1000, 2, 3), 255, np.uint8), "v2")
    assert (thin == 1).any(axis=(0, 1)).sum() == 1, "never less than a pixel wide"


@pytest.mark.parametrize(
    "pixels",
    [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 0, 3), np.uint8), np.zeros((4, 4, 3))],
)
def test_what_is_no_picture_is_refused(pixels: Any) -> None:
    with pytest.raises(PreprocessError, match="expected pixels .height, width, 3. of 8 bits, got"):
        preprocess.preprocess(pixels, "v1")


def test_only_a_clean_png_is_read() -> None:
    with pytest.raises(PreprocessError, match="expected a clean PNG"):
        preprocess.pixels(b"\x89PNG\r\n\x1a\n broken")
    with pytest.raises(PreprocessError, match="no preprocessing 'v9': there are v1, v2"):
        preprocess.version("v9")


def test_another_file_is_not_run(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = bytearray(network.path().read_bytes())
    monkeypatch.setenv("PLUMBLINE_CACHE", str(tmp_path / "cache"))
    settings.cache_clear()
    with pytest.raises(NetworkError, match=f"no network at {network.path()}: run `make setup`"):
        Network()
    content[len(content) // 2] ^= 1
    network.path().parent.mkdir(parents=True)
    network.path().write_bytes(content)
    with pytest.raises(NetworkError, match=f"expected sha256 {network.SHA256}, found .*it is not used"):
        Network()


def test_a_gpu_that_is_not_there_is_said(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLUMBLINE_IMAGES_PROVIDER", "cuda")
    settings.cache_clear()
    with pytest.raises(NetworkError, match="PLUMBLINE_IMAGES_PROVIDER=cuda: onnxruntime offers .*CPU.*or take `cpu`"):
        Network()
    assert network.extraction_model().endswith("/cuda"), "a GPU rounds otherwise: embeddings say it"
