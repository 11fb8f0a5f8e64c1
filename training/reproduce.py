"""A model made again from what MLflow says of its run, and compared with it link by link.

MLflow names the code, the lock, the release, the table versions, the dataset's hash and the parameters. The code is
checked out, builds its dataset from the lake's old versions and trains, without a look at what it is compared with:
see `training.rebuild`. Then dataset, parameters, metrics, the model's bytes and every prediction are compared. The
first link that does not hold is named.
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
from plumbline.progress import say
from plumbline.state import releases, trainings
from products.churn import CHURN
from training import canonical, datasets, rebuild, tracking
from training.churn import model
from training.churn.dataset import ORDERS, PRODUCT
from training.datasets import Dataset
from training.errors import TrainingError
from training.point_in_time import FEATURES
from training.rebuild import Rebuild, RebuildError

if TYPE_CHECKING:
    import xgboost
    from mlflow import MlflowClient

NAMED = (
    "code_sha",
    "lock_hash",
    "release_id",
    "data_version",
    "orders_version",
    "feature_service",
    "cutoff",
    "dataset_id",
    "dataset_hash",
)
"""What a run's params must say for it to be made again."""

COMMIT = re.compile(r"[0-9a-f]{40}")
BOOSTER = "model.ubj"


@dataclass(frozen=True)
class Recorded:
    """What MLflow knows of a run: its params and metrics, dataset.json, and the id of the model that it logged."""

    run_id: str
    params: dict[str, str]
    metrics: dict[str, float]
    about: dict[str, Any]
    model_id: str

    def version(self, named: str) -> int:
        """The Delta version in a name like `delta:features.customers@v=3`."""
        return int(self.params[named].rpartition("=")[2])


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
    """Makes a run again and compares. `run` is an MLflow run's id, or `model:N` for a registered version or alias.

    Gives every link, and in `broken` the name of the first that does not hold, None when the model is the same to the
    last bit. Raises TrainingError when there is no such run, or it does not say what it was made from.
    """
    mlflow_client = tracking.client()
    recorded = recover(mlflow_client, run)
    with leases.lease(CHURN, "reproduce", "reproduction"):
        head = {"run_id": f"reproduce-{recorded.run_id}", "stage": "reproduce"}
        return stage.recorded(CHURN, head, lambda: _reproduce(recorded, keep))


def recover(mlflow_client: MlflowClient, run: str) -> Recorded:
    """What MLflow says of a run, and nothing else says. Raises TrainingError when that is not enough."""
    from mlflow.exceptions import MlflowException

    try:
        found = mlflow_client.get_run(_run_id(mlflow_client, run))
        missing = [name for name in NAMED if name not in found.data.params]
        if found.info.status != "FINISHED" or missing:
            told = f"does not say its {', '.join(missing)}" if missing else f"is {found.info.status}"
            raise TrainingError(f"MLflow run {run} {told}: only a whole run of `plumb train` can be made again")
        with tempfile.TemporaryDirectory() as place:
            about = json.loads(
                Path(mlflow_client.download_artifacts(found.info.run_id, "dataset.json", place)).read_text()
            )
    except MlflowException as error:
        raise TrainingError(f"MLflow has no run {run!r}, or not all of it: {str(error).splitlines()[0]}") from None
    logged = [output.model_id for output in found.outputs.model_outputs] if found.outputs else []
    if not logged:
        raise TrainingError(f"MLflow run {run} logged no model: there is nothing to compare with")
    return Recorded(found.info.run_id, dict(found.data.params), dict(found.data.metrics), about, logged[0])


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
    for name, table in (("data_version", FEATURES), ("orders_version", ORDERS)):
        wanted = recorded.params[name]
        chain.needs(
            name, wanted, _readable(table, recorded.version(name)), f"{lake.uri(table)} does not hold it any more"
        )
    manifest = releases.manifest(PRODUCT, int(recorded.params["release_id"]))
    if manifest is not None:
        named = [f"{recorded.version(name)}" for name in ("data_version", "orders_version")]
        held = [str(manifest["tables"].get(table)) for table in (FEATURES, ORDERS)]
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
    number = recorded.params["release_id"]
    lake_owner.share_with(made.home)
    files.write_whole(made.home / releases.key(PRODUCT, int(number)), files.dumps(_manifest(recorded)))
    commands = [["dataset"], ["leakage_check"], ["train"]]
    if not (made.code / "validation" / "leakage.py").exists():  # a commit from before the gate
        commands.remove(["leakage_check"])
    try:
        python = rebuild.python_for(made)
        for command in commands:
            made.plumb(python, *command, "--release", number)
    except RebuildError as error:
        chain.needs("rebuild", "done", str(error).splitlines()[0], str(error))


def _manifest(recorded: Recorded) -> dict[str, Any]:
    """The release that the run was trained on: from its home when it is still there, else as far as MLflow names it."""
    number = int(recorded.params["release_id"])
    stored = releases.manifest(PRODUCT, number)
    if stored is not None:
        return stored
    say(f"release {number} is not in this home: as MLflow names it")
    tables = {FEATURES: recorded.version("data_version"), ORDERS: recorded.version("orders_version")}
    known = {"code_sha": recorded.params["code_sha"], "lock_hash": recorded.params["lock_hash"], "gates": {}}
    about = {"release_id": number, "product": PRODUCT, "as_of": recorded.about["labels_until"], "base": None}
    return {**about, **known, "tables": tables, "run_id": "as recorded", "published_at": "unknown"}


def _compare(chain: Chain, recorded: Recorded, made: Rebuild) -> None:
    """What was rebuilt against what MLflow has; only now is the stored model read."""
    number = recorded.params["release_id"]
    about, run = (
        files.read_json(made.home / datasets.key(number, name)) or {} for name in (trainings.ABOUT, trainings.RUN)
    )
    rows = canonical.from_parquet((made.home / datasets.key(number, trainings.ROWS)).read_bytes())
    for name in ("data_version", "orders_version", "feature_service", "cutoff", "dataset_id"):
        chain.add(
            f"dataset: {name.removeprefix('dataset_')}",
            recorded.params[name],
            about.get(name),
            "the rebuilt dataset names another",
        )
    digest = canonical.content_hash(rows)
    chain.add("dataset_hash", recorded.params["dataset_hash"], digest, _moved(recorded, about))
    theirs = {**run.get("params", {}), "code_sha": run.get("code_sha")}
    different = {k: v for k, v in theirs.items() if recorded.params.get(k) != str(v)}
    chain.add("params", "as recorded", f"differ: {different}" if different else "as recorded")
    changed = {k: v for k, v in run.get("metrics", {}).items() if recorded.metrics.get(k) != v}
    chain.add("metrics", "as recorded", f"differ: {changed}" if changed else "as recorded")
    with tempfile.TemporaryDirectory() as place:
        stored = _stored_booster(recorded, Path(place))
        again = sorted((made.home / "mlflow").rglob(BOOSTER))
        chain.needs("model files", 1, len(again), "the rebuild logged no model, or several")
        chain.add("model bytes", _digest(stored), _digest(again[0]), "the same dataset and code gave another model")
        data = Dataset(about, rows)
        _compare_predictions(chain, data, *(_loaded(path) for path in (stored, again[0])))


def _compare_predictions(chain: Chain, data: Dataset, stored: xgboost.Booster, again: xgboost.Booster) -> None:
    import numpy as np

    test = data.part(test=True)
    if not chain.add("model inputs", ", ".join(stored.feature_names or []), ", ".join(again.feature_names or [])):
        return
    one, other = (model.probability(booster, test) for booster in (stored, again))
    apart = float(np.abs(one - other).max())
    chain.add(
        f"{len(test):,} predictions",
        f"sha256:{files.sha256(np.ascontiguousarray(one).tobytes())}",
        f"sha256:{files.sha256(np.ascontiguousarray(other).tobytes())}",
        f"they are up to {apart:.3g} apart",
    )


def _stored_booster(recorded: Recorded, place: Path) -> Path:
    """The run's booster out of MLflow. Raises TrainingError when it is not there."""
    import mlflow.artifacts

    folder = Path(mlflow.artifacts.download_artifacts(f"models:/{recorded.model_id}", dst_path=str(place)))
    found = folder / BOOSTER
    if not found.is_file():
        raise TrainingError(f"MLflow's model {recorded.model_id} holds no {BOOSTER}: there is nothing to compare with")
    return found


def _loaded(path: Path) -> xgboost.Booster:
    import xgboost

    booster = xgboost.Booster({"nthread": 1})
    booster.load_model(path)
    return booster


def _moved(recorded: Recorded, about: dict[str, Any]) -> str:
    """What dataset.json says is different, for a dataset whose content is."""
    told = [
        f"{name} was {recorded.about.get(name)}, is {about.get(name)}"
        for name in ("rows", "churn_rate", "observations", "features")
        if recorded.about.get(name) != about.get(name)
    ]
    return "; ".join(told) or "as many rows of the same days and features, other values"


def _run_id(mlflow_client: MlflowClient, run: str) -> str:
    if not run.startswith("model:"):
        return run
    asked = run.removeprefix("model:")
    found = (
        mlflow_client.get_model_version(tracking.NAME, asked)
        if asked.isdecimal()
        else mlflow_client.get_model_version_by_alias(tracking.NAME, asked)
    )
    return str(found.run_id)


def _digest(path: Path) -> str:
    return f"sha256:{files.sha256(path.read_bytes())}"


def _short(value: str) -> str:
    """A hash by its beginning, a long text by its first words."""
    if re.fullmatch(r"(sha256:)?[0-9a-f]{40,}", value):
        return value[:19]
    return value if len(value) <= 60 else f"{value[:57]}…"
