"""The network that makes an embedding of a picture: EfficientNet-lite0 in ONNX, run by onnxruntime.

`make setup` builds its file (toolchain/network.py) and this module takes no other: the digest is pinned here and named
by every embedding. On one kind of processor a picture's embedding is the same bits in any batch and with any number
of callers (a test holds it); another kind, or a GPU, rounds otherwise.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from plumbline import files
from plumbline.errors import PlumblineError
from plumbline.settings import settings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MODEL = "efficientnet-lite0"
SHA256 = "1440795e653ed46536bca0707e3979afeea9a9b04daff482f013e4e3e15052d4"
SIZE = 1280
"""Numbers in an embedding."""
PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


def threads() -> int:
    """How many cores decoding and embedding use: PLUMBLINE_IMAGES_THREADS, else all of them."""
    return settings().images_threads or os.cpu_count() or 1


class NetworkError(PlumblineError):
    """The network's file is not there or is another, or what it should run on is not there."""


def path() -> Path:
    """The network's file, in the cache."""
    return settings().cache / "networks" / f"{MODEL}-{SHA256[:12]}.onnx"


def extraction_model() -> str:
    """What each embedding says it was made by: name, digest, and the processor where that is not the CPU."""
    provider = settings().images_provider
    return f"{MODEL}@sha256:{SHA256[:12]}" + ("" if provider == "cpu" else f"/{provider}")


class Network:
    """The network, loaded once. Each call runs on its caller's thread, and several threads may call at once."""

    def __init__(self) -> None:
        """Raises NetworkError that says what to do."""
        import onnxruntime

        content = _verified(path())
        provider = PROVIDERS[settings().images_provider]
        if provider not in onnxruntime.get_available_providers():
            raise NetworkError(_lacking(onnxruntime.get_available_providers()))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.use_deterministic_compute = True
        self._session = onnxruntime.InferenceSession(content, options, providers=[provider])
        if provider not in self._session.get_providers():  # it falls back to the CPU, in silence
            raise NetworkError(_lacking(self._session.get_providers()))

    def embed(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Prepared pictures (n, 3, size, size) to their embeddings (n, 1280)."""
        embeddings: NDArray[np.float32] = self._session.run(["embedding"], {"input": batch})[0]
        return embeddings

    def logits(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """What the network was trained to say, (n, 1000): one number for each of ImageNet's classes."""
        scores: NDArray[np.float32] = self._session.run(["logits"], {"input": batch})[0]
        return scores


def _verified(place: Path) -> bytes:
    try:
        content = place.read_bytes()
    except FileNotFoundError:
        raise NetworkError(f"no network at {place}: run `make setup`, which builds it") from None
    if (digest := files.sha256(content)) != SHA256:
        raise NetworkError(
            f"{place}: expected sha256 {SHA256}, found {digest}: it is not used. Remove it and run `make setup`"
        )
    return content


def _lacking(available: list[str]) -> str:
    return (
        f"PLUMBLINE_IMAGES_PROVIDER={settings().images_provider}: onnxruntime offers {', '.join(available)} here. "
        "Install onnxruntime-gpu and CUDA's libraries in its place, or take `cpu`"
    )
