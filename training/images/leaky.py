"""A dataset's leaky twin: three mistakes that image datasets are made with, on purpose, measured beside the honest one.

Copies are augmented before the split, so that some are tested on the picture that they were made from; labels are the
reviewed ones, also those from after the cutoff; and rows are divided at random, near duplicates on both sides. It is
scored by the same model as the honest one, judged by the leakage gates, and never published, logged or registered.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from plumbline import provenance, verdict
from plumbline.errors import PlumblineError
from plumbline.lake import tables as lake
from plumbline.pictures import preprocess
from plumbline.pipeline import stage
from plumbline.progress import say
from plumbline.state import objects, trainings
from plumbline.state.trainings import Place
from products.images import CLEAN, IMAGES, LABELS
from training import canonical, datasets
from training.datasets import Dataset
from training.images import classifier, dataset, labels, measures, split, train

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    Embed = Callable[[NDArray[Any]], NDArray[Any]]

STAGE = "leaky_twin"
AUGMENTED = 400
"""Images that get a copy: embedding them is most of the twin's time."""
DEGREES, PIXELS = 8.0, 0.06
"""A copy is turned by at most so many degrees and shifted by at most that share of a side."""
COPY = "~"
"""What divides an augmented copy's id from the id of its picture."""
SHOWN = {"accuracy": "accuracy ↑", "log_loss": "log loss ↓"}


def build(where: Place, embed: Embed | None = None) -> dict[str, Any]:
    """Builds and scores the twin of a dataset, or finds it built before.

    `embed` gives the embedding of a picture (h, w, 3); default: the network, as stage 03 asks it. Gives the twin's
    dataset.json; `scores` has the metrics of both. Raises TrainingError when the honest one was not built.
    """
    where = replace(where, leaky=True)
    with datasets.working(IMAGES, STAGE):
        honest = datasets.load(replace(where, leaky=False))
        about = objects.read_json(where.key(trainings.ABOUT))
        made_from = (honest.about["content_hash"], provenance.code_sha())
        if about is not None and (about["twin_of"], about["code_sha"]) == made_from:
            return {"state": "unchanged", **about}
        about = stage.recorded(IMAGES, where.head(STAGE), lambda: _build(honest, where, embed))
        objects.replace_json(where.key(trainings.ABOUT), about)
        return {"state": "done", **about}


def tell(about: dict[str, Any], judged: dict[str, Any]) -> None:
    """Prints both scores side by side, and what the gates said of the twin."""
    from plumbline.display import terminal

    console = terminal.console(120)
    table = terminal.table(f"{about['dataset_id']}: what the split and the cutoff are for", "", *SHOWN.values())
    for name, metrics in about["scores"].items():
        table.add_row(name.replace("_", " "), *(f"{metrics[shown]:.4f}" for shown in SHOWN))
    console.print(table)
    for name, gate in verdict.read(judged["gates"], about["dataset_id"]).items():
        color = "green" if gate.passed else "red"
        console.print(f"  [{color}]{gate.verdict}[/{color}] {name}" + "".join(f"\n    {f}" for f in gate.failed[:3]))
    console.print("  The twin is never registered; `plumb images train` takes no dataset that a gate failed on.")


def _build(honest: Dataset, where: Place, embed: Embed | None) -> dict[str, Any]:
    rows = honest.rows.to_pandas()
    rows = _augmented(rows, honest, embed or network(honest.about["preprocessing_version"]))
    rows, reviewed = _reviewed(rows)
    rows = rows.assign(split=_at_random(len(rows)))
    kept = ("classes", "class_counts", "split_counts", "content_hash", "dataset_id", "message", "groups")
    facts = {name: value for name, value in honest.about.items() if name not in (*kept, "seconds", "code_sha")}
    about, content = dataset.described(where, rows, facts)
    objects.replace_bytes(where.key(trainings.ROWS), content)
    twin = Dataset(about, canonical.from_parquet(content))
    scores = {"honest": _scored(honest), "leaky_twin": _scored(twin)}
    accuracies = [metrics["accuracy"] for metrics in scores.values()]
    return {
        **about,
        "twin_of": honest.about["content_hash"],
        "augmented": int(rows["image_id"].str.contains(COPY).sum()),
        "reviewed_labels": reviewed,
        "scores": scores,
        "message": f"accuracy {accuracies[0]:.4f} of the honest dataset, {accuracies[1]:.4f} of its leaky twin",
    }


def network(preprocessing: str) -> Embed:
    """The network on pictures that are preprocessed so. Raises NetworkError when it is not there."""
    from plumbline.pictures.network import Network

    loaded = Network()
    return lambda rgb: loaded.embed(preprocess.preprocess(rgb, preprocessing)[None])[0]


def augment(rgb: NDArray[Any], angle: float, across: float, down: float) -> NDArray[Any]:
    """A picture turned by `angle` degrees and shifted by these shares of its sides; its edges take its first pixel."""
    import numpy as np
    from PIL import Image

    height, width, _ = rgb.shape
    turned = Image.fromarray(rgb).rotate(
        angle,
        Image.Resampling.BILINEAR,
        translate=(round(across * width), round(down * height)),
        fillcolor=tuple(int(level) for level in rgb[0, 0]),
    )
    return np.asarray(turned)


def _augmented(rows: pd.DataFrame, honest: Dataset, embed: Embed) -> pd.DataFrame:
    """The rows, and a copy of some of them, with the embedding of the altered picture."""
    import numpy as np
    import pandas as pd

    random = np.random.default_rng(split.SEED)
    chosen = rows.iloc[np.sort(random.permutation(len(rows))[:AUGMENTED])]
    version = int(str(honest.about["clean_version"]).rpartition("=")[2])
    clean = lake.open_table(CLEAN, version).to_pyarrow_table(columns=["image_id", "clean_uri"]).to_pandas()
    uris = clean.set_index("image_id")["clean_uri"]
    say(f"embedding {len(chosen):,} augmented copies")
    copies = []
    for row in chosen.to_dict("records"):
        angle, across, down = random.uniform(-1, 1, 3) * (DEGREES, PIXELS, PIXELS)
        picture = augment(_picture(uris[row["image_id"]]), angle, across, down)
        copies.append({**row, "image_id": f"{row['image_id']}{COPY}1", dataset.FEATURE: embed(picture)})
    return pd.concat([rows, pd.DataFrame(copies)], ignore_index=True)


def _picture(uri: str) -> NDArray[Any]:
    stored = objects.read_at(uri)
    if stored is None:
        raise PlumblineError(f"{uri} is gone: a cleaned picture is never deleted; bring it back from a backup")
    return preprocess.pixels(stored.content)


def _reviewed(rows: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """The rows with each image's newest label of all, whenever it was given, and how many that changes."""
    statements = lake.open_table(LABELS).to_pyarrow_table(columns=list(labels.COLUMNS))
    newest = labels.known(statements, datetime.max.replace(tzinfo=UTC))
    label = rows["image_id"].str.partition(COPY)[0].map(newest).fillna(rows["label"])
    return rows.assign(label=label), int((label != rows["label"]).sum())


def _at_random(count: int) -> NDArray[Any]:
    """A side for each row, in the same shares as the honest split, whatever the row is of."""
    import numpy as np

    place = np.random.default_rng(split.SEED).permutation(count) % split.BLOCK
    sides: NDArray[Any] = np.where(place < split.TEST, "test", np.where(place < split.TEST + split.VAL, "val", "train"))
    return sides


def _scored(data: Dataset) -> dict[str, float]:
    """The same model, trained on the dataset's own training side and measured on its own test side."""
    training, test = train.side(data, "train"), train.side(data, "test")
    content = classifier.fit(training.embeddings, training.labels, classifier.Params()).SerializeToString()
    said = classifier.probabilities(content, test.embeddings)
    return measures.metrics(test.labels, said, classifier.classes(content))
