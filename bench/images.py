"""Images: embedding with reading and decoding beside bare onnxruntime, near duplicates beside faiss, memory, latency.

`python -m bench.images WORK …` is a process of its own for one of them; `measure` runs all.
"""

from __future__ import annotations

import base64
import json
import resource
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from typing import Any

from bench import measured
from plumbline.progress import say

PICTURES, ROUNDS = 1_000, 3
HASHES = (100_000, 1_000_000)
PEER_MOST = 100_000
"""Hashes up to which faiss is asked: of a million it had not ended after six minutes."""
SEED = 14
SIZES = (1_000, 10_000)
"""Pictures in the runs whose memory is compared."""
DAY = date(2026, 10, 31)
ASKED = 300


def measure() -> dict[str, Any]:
    """All of it, each part in a process of its own."""
    with measured.home("images", DAY):
        embedding = measured.worker("images", "embedding")
        near = [measured.worker("images", "near", size) for size in HASHES]
        latency = measured.worker("images", "latency")
    memory = []
    for size in SIZES:
        with measured.home(f"images-{size}", DAY):
            memory.append(measured.worker("images", "memory", size))
    return {"embedding": embedding, "near_duplicates": near, "memory": memory, "latency": latency}


def embedding() -> dict[str, Any]:
    """Seconds of stage 03's path over clean PNGs (read, decode, prepare, embed) and of the network alone."""
    import numpy as np

    from feature_repo.images import pictures as stage
    from plumbline import files
    from plumbline.pictures import network, preprocess
    from plumbline.pictures.decode import clean_png
    from plumbline.pictures.network import Network
    from plumbline.settings import settings
    from plumbline.state import objects

    store, rows, prepared = objects.store_at(settings().bucket("clean-images")), [], []
    for number in range(PICTURES):
        rgb = _picture(number)
        png = clean_png(rgb)
        key = f"bench/{number % 100:02}/{number}.png"
        store.replace(key, png, None)
        rows.append({"clean_uri": store.where(key), "clean_sha256": files.sha256(png)})
        prepared.append(preprocess.preprocess(rgb, "v1"))
    batches = [np.stack(prepared[start : start + stage.BATCH]) for start in range(0, PICTURES, stage.BATCH)]
    loaded = Network()
    loaded.embed(batches[0])

    def alone(batches: list[Any]) -> None:
        with ThreadPoolExecutor(network.threads()) as threads:  # as many as stage 03 has
            list(threads.map(loaded.embed, batches))

    seconds: dict[str, list[float]] = {"stage 03": [], "onnxruntime alone": []}
    for _ in range(ROUNDS):  # in turns
        seconds["stage 03"].append(measured.took(lambda: stage.embeddings(rows, "v1", loaded)))
        seconds["onnxruntime alone"].append(measured.took(lambda: alone(batches)))
    best = {path: min(took) for path, took in seconds.items()}
    return {
        "pictures": PICTURES,
        "paths": [{"path": path, "per_second": round(PICTURES / took, 1)} for path, took in best.items()],
        "ratio_to_onnxruntime": round(best["stage 03"] / best["onnxruntime alone"], 3),
    }


def near(size: int) -> dict[str, Any]:
    """Seconds to find all pairs within the limit among random hashes, a tenth of which have a near one."""
    import faiss
    import numpy as np

    from ingestion.images import near_duplicates

    rng = np.random.default_rng(SEED)
    hashes = rng.integers(0, 2**64, size, np.uint64)
    for place in range(0, size, 10):
        flips = rng.choice(64, rng.integers(1, near_duplicates.MOST_BITS + 1), replace=False)
        hashes[place] = hashes[place - 1] ^ np.bitwise_or.reduce(np.uint64(1) << flips.astype(np.uint64))
    ours = measured.took(lambda: near_duplicates.candidates(hashes))
    pairs = len(near_duplicates.candidates(hashes)[0])
    faiss.omp_set_num_threads(1)
    rows = hashes.view(np.uint8).reshape(size, 8)
    found: list[int] = []

    def theirs() -> None:
        index = faiss.IndexBinaryMultiHash(64, near_duplicates.BANDS, near_duplicates.BAND_BITS)
        index.nflip = 1
        index.add(rows)
        limits, _, _ = index.range_search(rows, near_duplicates.MOST_BITS + 1)
        found.append((int(limits[-1]) - size) // 2)

    peer: dict[str, Any] = {"faiss_seconds": None, "faiss_pairs": None}
    if size <= PEER_MOST:
        peer = {"faiss_seconds": round(measured.took(theirs), 2), "faiss_pairs": found[0]}
    return {"hashes": size, "pairs": pairs, "seconds": round(ours, 2), **peer}


def memory(size: int) -> dict[str, Any]:
    """The highest resident memory, in MiB, of a process that ingests, cleans and embeds so many digits."""
    from plumbline.pipeline import stage
    from products.images import IMAGES

    begun = time.perf_counter()
    for name in ("ingest", "clean", "features"):
        stage.perform(IMAGES, name, DAY, _work(name, size))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"images": size, "peak_mib": round(peak), "seconds": round(time.perf_counter() - begun, 1)}


def latency() -> dict[str, Any]:
    """p50 and p99 of one image by id and by bytes, over HTTP, on the demo's own home of digits."""
    from plumb.demo import images as demo
    from products.images import IMAGES
    from serving import client, launch

    demo.through_airflow("mnist:1000")
    launch.ensure(IMAGES)
    pictures = demo.asked(50)
    by_id: list[Any] = [{"image_id": image} for image in pictures]
    by_bytes: list[Any] = [{"image": {"b64": base64.b64encode(content).decode()}} for content in pictures.values()]
    found = {}
    for path, instances in {"by id": by_id, "by bytes": by_bytes}.items():
        for instance in instances[:10]:
            client.predict(IMAGES, [instance])
        found[path] = measured.percentiles(
            [measured.took(lambda asked=one: client.predict(IMAGES, [asked])) for one in (instances * 6)[:ASKED]]  # type: ignore[misc]
        )
    return found


def _picture(seed: int) -> Any:
    import numpy as np

    return np.random.default_rng(seed).integers(0, 256, (64, 64, 3), np.uint8)


def _work(name: str, size: int) -> Callable[[Any], str]:
    import pkgutil
    from functools import partial

    from products.images import IMAGES

    work = pkgutil.resolve_name(IMAGES.stage(name).work)
    return partial(work, source=str(_folder(size))) if name == "ingest" else work


def _folder(size: int) -> Any:
    """A folder of so many pictures of noise, with labels.csv."""
    from plumbline.pictures.decode import clean_png
    from plumbline.settings import settings

    folder = settings().home / f"noise-{size}"
    if not (folder / "labels.csv").exists():
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(size):
            (folder / f"{number}.png").write_bytes(clean_png(_picture(number)))
        rows = "".join(f"{number}.png,{number % 10}\n" for number in range(size))
        (folder / "labels.csv").write_text("image,label\n" + rows)
    return folder


WORK: dict[str, Callable[..., Any]] = {"embedding": embedding, "near": near, "memory": memory, "latency": latency}

if __name__ == "__main__":
    name, *arguments = sys.argv[1:]
    say(f"images: {name} {' '.join(arguments)}")
    print(json.dumps(WORK[name](*map(int, arguments))))
