"""A model made again from what MLflow says of its run, and compared with it link by link.

The run's experiment says which product it is of. MLflow names the code, the lock, the release, the table versions, the
dataset's hash and the parameters. The code is checked out, builds its dataset from the lake's old versions and trains,
without a look at what it is compared with: see `training.rebuild`. Then dataset, parameters, metrics, the model's bytes
and every prediction are compared. The first link that does not hold is named.
"""

from __future__ import annotations

import json
import re
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plumbline import files
from plumbline.lake import tables as lake
from plumbline.pipeline import lake_owner, leases, stage
from plumbline.product import Product
from plumbline.progress import say
from plumbline.state import releases, trainings
from plumbline.state.trainings import Place
from training import canonical, rebuild, shelf, tracking
from training.datasets import Dataset
from training.errors import TrainingError
from training.rebuild import Rebuild, RebuildError
from training.shelf import Shelf

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

STAGES = ("dataset", "leakage_check", "train")
COMMIT = re.compile(r"[0-9a-f]{40}")
SHORTHAND = "model"
"""What may stand for the first product's model in `model:1`."""


@dataclass(frozen=True)
class Recorded:
    """What MLflow knows of a run: its params and metrics, dataset.json, and the id of the model that it logged."""

    product: Product
    run_id: str
    params: dict[str, str]
    metrics: dict[str, float]
    about: dict[str, Any]
    model_id: str

    @property
    def part(self) -> Shelf:
        """The product's part of training."""
        return shelf.of(self.product)

    @property
    def place(self) -> Place:
        """Where its dataset lies in a home."""
        return self.part.place(self.about)

    @property
    def tables(self) -> dict[str, int]:
        """Each table that it was made from, with its version: of params like `delta:features.customers@v=3`."""
        named = (self.params[name].removeprefix("delta:").partition("@v=") for name in self.part.pins)
        return {table: int(version) for table, _, version in named}


@dataclass(frozen=True)
class Link:
    """One link of the chain: what the run recorded, what is found or was rebuilt, and what to know when they differ."""

    name: str
    recorded: str
    rebuilt: str
    same: bool
    told: str = ""


@dataclass
class Chain:
    """The links so far. Without a link that `needs` to hold there is nothing to go on with."""

    links: list[Link] = field(default_factory=list)

    def add(self, name: str, recorded: object, rebuilt: object, told: str = "") -> bool:
        """Compares as text; `told` is kept for a link that is broken. True when it holds."""
        same = str(recorded) == str(rebuilt)
        self.links.append(Link(name, str(recorded), str(rebuilt), same, "" if same else told))
        return same

    def needs(self, name: str, recorded: object, rebuilt: object, told: str) -> None:
        """The same, and raises Broken when it does not hold."""
        if not self.add(name, recorded, rebuilt, told):
            raise Broken(name)

    @property
    def broken(self) -> Link | None:
        """The first that does not hold."""
        return next((link for link in self.links if not link.same), None)


class Broken(Exception):
    """A link that everything behind it hangs on."""


def reproduce(run: str, keep: bool = False) -> dict[str, Any]:
    """Makes a run again and compares. `run` is an MLflow run's id, or `NAME:N` for a registered version or alias.

    Gives every link, and in `broken` the name of the first that does not hold, None when the model is the same to the
    last bit. Raises TrainingError when there is no such run, or it does not say what it was made from.
    """
    mlflow_client = tracking.client()
    recorded = recover(mlflow_client, run)
    with leases.lease(recorded.product, "reproduce", "reproduction"):
        head = {"run_id": f"reproduce-{recorded.run_id}", "stage": "reproduce"}
        return stage.recorded(recorded.product, head, lambda: _reproduce(recorded, keep))


def recover(mlflow_client: MlflowClient, run: str) -> Recorded:
    """What MLflow says of a run, and nothing else says. Raises TrainingError when that is not enough."""
    from mlflow.exceptions import MlflowException

    try:
        found = mlflow_client.get_run(_run_id(mlflow_client, run))
        product = _product(mlflow_client, found)
        missing = [name for name in _named(shelf.of(product)) if name not in found.data.params]
        if found.info.status != "FINISHED" or missing:
            told = f"does not say its {', '.join(missing)}" if missing else f"is {found.info.status}"
            train = product.command_of("train")
            raise TrainingError(f"MLflow run {run} {told}: only a whole run of `{train}` can be made again")
        with tempfile.TemporaryDirectory() as place:
            about = json.loads(
                Path(mlflow_client.download_artifacts(found.info.run_id, "dataset.json", place)).read_text()
            )
    except MlflowException as error:
        raise TrainingError(f"MLflow has no run {run!r}, or not all of it: {str(error).splitlines()[0]}") from None
    logged = [output.model_id for output in found.outputs.model_outputs] if found.outputs else []
    if not logged:
        raise TrainingError(f"MLflow run {run} logged no model: there is nothing to compare with")
    return Recorded(product, found.info.run_id, dict(found.data.params), dict(found.data.metrics), about, logged[0])


def tell(found: dict[str, Any]) -> None:
    """Prints the links as a table, and what is broken."""
    from plumbline.display import terminal

    console = terminal.console(150)
    told = terminal.table(f"Run {found['mlflow_run_id']} made again", "link", "recorded", "rebuilt", "same")
    for link in found["links"]:
        mark = "[green]yes[/green]" if link["same"] else "[red]NO[/red]"
        told.add_row(link["name"], _short(link["recorded"]), _short(link["rebuilt"]), mark)
    console.print(told)
    for link in found["links"]:
        if link["told"]:
            console.print(f"  [red]{link['name']}[/red]: {link['told']}", soft_wrap=True, markup=True)
    console.print(f"  {found['message']} ({found['seconds']:.0f} s)")
    if found["kept"]:
        console.print(f"  Kept: {found['kept']}")


def _reproduce(recorded: Recorded, keep: bool) -> dict[str, Any]:
    chain = Chain()
    kept = None
    try:
        _check_inputs(chain, recorded)
        with rebuild.worktree(recorded.params["code_sha"], recorded.run_id[:12], keep) as made:
            kept = str(made.folder) if keep else None
            _remake(chain, recorded, made)
            _compare(chain, recorded, made)
    except Broken:
        pass
    broken = chain.broken
    message = f"all {len(chain.links)} links hold: the model is the same, byte for byte"
    if broken is not None:
        message = f"broken at {broken.name}: recorded {_short(broken.recorded)}, rebuilt {_short(broken.rebuilt)}"
    return {
        "message": message,
        "mlflow_run_id": recorded.run_id,
        "broken": broken.name if broken else None,
        "links": [asdict(link) for link in chain.links],
        "kept": kept,
    }


def _check_inputs(chain: Chain, recorded: Recorded) -> None:
    """The links that can break without anything being rebuilt: the commit, the table versions, the release."""
    sha = recorded.params["code_sha"]
    if not COMMIT.fullmatch(sha):
        told = "it was trained on changes that were never committed, so no commit holds its code"
        chain.needs("code_sha", sha, "no commit", told)
    found = sha if rebuild.has_commit(sha) else "not in this repository"
    chain.needs("code_sha", sha, found, "fetch the branch that holds it (`git fetch --all`), or it is lost")
    tables = recorded.tables
    for name, (table, version) in zip(recorded.part.pins, tables.items(), strict=True):
        told = f"{lake.uri(table)} does not hold it any more"
        chain.needs(name, recorded.params[name], _readable(table, version), told)
    manifest = releases.manifest(recorded.product.name, int(recorded.params["release_id"]))
    if manifest is not None:
        named = [str(version) for version in tables.values()]
        held = [str(manifest["tables"].get(table)) for table in tables]
        told = "the release of that number in this home is another one"
        chain.needs("release", f"{recorded.params['release_id']} @v{'/'.join(named)}",
                    f"{manifest['release_id']} @v{'/'.join(held)}", told)  # fmt: skip


def _readable(table: str, version: int) -> str:
    """The name of the table at that version, or what is wrong with it."""
    try:
        opened = lake.open_table(table, version)
    except lake.LakeError as error:
        return str(error)
    data = opened.to_pyarrow_dataset()
    about = data.filesystem.get_file_info(data.files)
    gone = [info for info in about if not info.is_file]
    return f"{len(gone)} of its {len(about)} files are gone" if gone else f"delta:{table}@v={version}"


def _remake(chain: Chain, recorded: Recorded, made: Rebuild) -> None:
    """Lock, environment, dataset and training in the worktree, each a link."""
    told = "the lock in that commit is not the one it was trained with"
    chain.needs("lock_hash", recorded.params["lock_hash"], made.lock_hash, told)
    product, number = recorded.product, int(recorded.params["release_id"])
    lake_owner.share_with(made.home)
    files.write_whole(made.home / releases.key(product.name, number), files.dumps(_manifest(recorded)))
    gated = (made.code / "validation" / "leakage.py").exists()  # else a commit from before the gate
    try:
        python = rebuild.python_for(made)
        for name in STAGES:
            if gated or name != "leakage_check":
                made.plumb(python, *product.command_of(name).split()[1:], *recorded.place.options)
    except RebuildError as error:
        chain.needs("rebuild", "done", str(error).splitlines()[0], str(error))


def _manifest(recorded: Recorded) -> dict[str, Any]:
    """The release that the run was trained on: from its home when it is still there, else as far as MLflow names it."""
    number = int(recorded.params["release_id"])
    stored = releases.manifest(recorded.product.name, number)
    if stored is not None:
        return stored
    say(f"release {number} is not in this home: as MLflow names it")
    known = {"code_sha": recorded.params["code_sha"], "lock_hash": recorded.params["lock_hash"], "gates": {}}
    as_of = recorded.part.as_of(recorded.about)
    about = {"release_id": number, "product": recorded.product.name, "as_of": as_of, "base": None}
    about["rejected"] = recorded.about.get("rejected_batches", [])
    return {**about, **known, "tables": recorded.tables, "run_id": "as recorded", "published_at": "unknown"}


def _compare(chain: Chain, recorded: Recorded, made: Rebuild) -> None:
    """What was rebuilt against what MLflow has; only now is the stored model read."""
    part, place = recorded.part, recorded.place
    about, run = (files.read_json(made.home / place.key(name)) or {} for name in (trainings.ABOUT, trainings.RUN))
    rows = canonical.from_parquet((made.home / place.key(trainings.ROWS)).read_bytes())
    hashed = shelf.hash_name(part)
    for name in (name for name in part.named if name != hashed):
        rebuilt = about.get(part.named[name])
        title = f"dataset: {name.removeprefix('dataset_')}"
        chain.add(title, recorded.params[name], rebuilt, "the rebuilt dataset names another")
    digest = canonical.content_hash(rows, canonical.key(recorded.product))
    chain.add(hashed, recorded.params[hashed], digest, _moved(recorded, about))
    theirs = {**run.get("params", {}), "code_sha": run.get("code_sha")}
    different = {k: v for k, v in theirs.items() if recorded.params.get(k) != str(v)}
    chain.add("params", "as recorded", f"differ: {different}" if different else "as recorded")
    changed = {k: v for k, v in run.get("metrics", {}).items() if recorded.metrics.get(k) != v}
    chain.add("metrics", "as recorded", f"differ: {changed}" if changed else "as recorded")
    with tempfile.TemporaryDirectory() as folder:
        stored = _stored_model(recorded, Path(folder))
        again = sorted((made.home / "mlflow").rglob(part.model_file))
        chain.needs("model files", 1, len(again), "the rebuild logged no model, or several")
        rebuilt = again[0].read_bytes()
        chain.add("model bytes", _digest(stored), _digest(rebuilt), "the same dataset and code gave another model")
        _compare_predictions(chain, part, Dataset(about, rows), stored, rebuilt)


def _compare_predictions(chain: Chain, part: Shelf, data: Dataset, stored: bytes, again: bytes) -> None:
    import numpy as np

    if not chain.add("model inputs", part.inputs(stored), part.inputs(again)):
        return
    one, other = (part.scores(content, data) for content in (stored, again))
    apart = float(np.abs(one - other).max())
    chain.add(
        f"{len(one):,} predictions",
        f"sha256:{files.sha256(np.ascontiguousarray(one).tobytes())}",
        f"sha256:{files.sha256(np.ascontiguousarray(other).tobytes())}",
        f"they are up to {apart:.3g} apart",
    )


def _stored_model(recorded: Recorded, place: Path) -> bytes:
    """The run's model out of MLflow. Raises TrainingError when it is not there."""
    import mlflow.artifacts

    folder = Path(mlflow.artifacts.download_artifacts(f"models:/{recorded.model_id}", dst_path=str(place)))
    name = recorded.part.model_file
    found = folder / name
    if not found.is_file():
        raise TrainingError(f"MLflow's model {recorded.model_id} holds no {name}: there is nothing to compare with")
    return found.read_bytes()


def _moved(recorded: Recorded, about: dict[str, Any]) -> str:
    """What dataset.json says is different, for a dataset whose content is."""
    told = [
        f"{name} was {recorded.about.get(name)}, is {about.get(name)}"
        for name in ("rows", "churn_rate", "split_counts", "observations", "features")
        if recorded.about.get(name) != about.get(name)
    ]
    return "; ".join(told) or "as many rows of the same days and features, other values"


def _run_id(mlflow_client: MlflowClient, run: str) -> str:
    name, separator, asked = run.partition(":")
    if not separator:
        return run
    name = shelf.PRODUCTS[0].model if name == SHORTHAND else name
    found = (
        mlflow_client.get_model_version(name, asked)
        if asked.isdecimal()
        else mlflow_client.get_model_version_by_alias(name, asked)
    )
    return str(found.run_id)


def _product(mlflow_client: MlflowClient, run: Run) -> Product:
    """The product whose experiment a run is in. Raises TrainingError when it is no product's."""
    name = mlflow_client.get_experiment(run.info.experiment_id).name
    known = {product.model: product for product in shelf.PRODUCTS}
    if name not in known:
        raise TrainingError(
            f"MLflow run {run.info.run_id} is in the experiment {name!r}: expected one of {', '.join(known)}, which "
            "`plumb train` and its like make"
        )
    return known[name]


def _named(part: Shelf) -> tuple[str, ...]:
    """What a run's params must say for it to be made again."""
    return ("code_sha", "lock_hash", *part.named)


def _digest(content: bytes) -> str:
    return f"sha256:{files.sha256(content)}"


def _short(value: str) -> str:
    """A hash by its beginning, a long text by its first words."""
    if re.fullmatch(r"(sha256:)?[0-9a-f]{40,}", value):
        return value[:19]
    return value if len(value) <= 60 else f"{value[:57]}…"
