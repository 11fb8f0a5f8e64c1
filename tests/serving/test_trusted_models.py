"""What stands between a registered model and the memory of a predictor: its signature, and that it is data."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xgboost

from plumbline.metrics import instrument
from plumbline.registry import trusted_models
from plumbline.registry.signing import Untrusted
from plumbline.settings import settings
from plumbline.state import ledger
from products.churn import CHURN
from serving import loaded_model as registry
from serving.deploy import deploy
from serving.errors import ServingError
from tests.serving import made_up_customers
from tests.serving.made_up_customers import FULL

pytestmark = pytest.mark.usefixtures("_home_settings", "_champion")


@pytest.fixture
def _champion(serving_home: Path) -> Iterator[None]:
    client = registry.client()
    client.set_registered_model_alias(CHURN.model, registry.CHAMPION, "1")
    yield
    client.set_registered_model_alias(CHURN.model, registry.CHAMPION, "1")
    client.set_registered_model_alias(CHURN.model, registry.CHALLENGER, "1")
    client.delete_registered_model_alias(CHURN.model, registry.PREVIOUS)


@pytest.fixture
def made() -> str:
    """Another signed version of the registered model."""
    names = list(registry.load(CHURN, "1").trusted.booster.feature_names)
    rows = pd.DataFrame(np.random.default_rng(3).integers(0, 2000, (200, len(names))).astype("float64"), columns=names)
    booster = xgboost.train({"objective": "binary:logistic"}, xgboost.DMatrix(rows, label=rows[names[0]] > 999), 5)
    experiment = registry.client().get_experiment_by_name(CHURN.model).experiment_id
    return made_up_customers.register(booster, experiment, "churn_v1")


def files_of(version: str) -> Path:
    """Where MLflow keeps the version's files."""
    model_id = registry.client().get_model_version(CHURN.model, version).source.rpartition("/")[2]
    return settings().home / "mlflow" / "artifacts" / "models" / model_id / "artifacts"


def alias(name: str) -> str | None:
    found = registry.find(CHURN, name)
    return str(found.version) if found else None


def refused(version: str, match: str) -> None:
    """Deploying it is refused with exit code 3, aliases stay, and the ledger names the gate."""
    with pytest.raises(Untrusted, match=match) as told:
        deploy(CHURN, version)
    assert told.value.exit_code == 3
    assert (alias(registry.CHAMPION), alias(registry.PREVIOUS)) == ("1", None)
    event = [event for event in ledger.events("churn") if event["stage"] == "deploy"][-1]
    assert (event["state"], event["gates"]["model_signature"]["verdict"]) == ("GATE_FAILED", "failed")


def row(version: str, **columns: str | None) -> None:
    """Alters a version's row in the registry's database, as whoever can write to it may."""
    with sqlite3.connect(settings().home / "mlflow" / "mlflow.db") as database:
        for name, value in columns.items():
            database.execute(f"UPDATE model_versions SET {name} = ? WHERE version = ?", (value, version))


def link_out(folder: Path) -> None:
    (folder / "x.json").symlink_to("/nope")


def link_to_itself(folder: Path) -> None:
    (folder / "kept").write_bytes((folder / "model.ubj").read_bytes())
    (folder / "model.ubj").unlink()
    (folder / "model.ubj").symlink_to(folder / "kept")


def endless(folder: Path) -> None:
    (folder / "model.ubj").unlink()
    (folder / "model.ubj").symlink_to("/dev/zero")


def folder_behind_a_link(folder: Path) -> None:
    folder.rename(folder.parent / "elsewhere")
    folder.symlink_to(folder.parent / "elsewhere")


@pytest.mark.parametrize(
    ("alter", "match"),
    [
        (link_out, "holds a symbolic link: x.json"),
        (link_to_itself, "holds a symbolic link: model.ubj"),
        (endless, "holds a symbolic link: model.ubj"),
        (folder_behind_a_link, "is no folder"),
        (lambda folder: os.mkfifo(folder / "pipe.json"), "holds pipe.json, which is no file"),
        (lambda folder: shutil.rmtree(folder), "is no folder"),
        (lambda folder: (folder / "MLmodel").unlink(), "after it was signed lacks MLmodel"),
        (lambda folder: (folder / "deep.json").mkdir(), "churn_xgb version"),
    ],
)
def test_whatever_is_done_to_the_files_the_model_is_untrusted_and_the_standby_serves(
    made: str, alter: Callable[[Path], object], match: str, predictor: Callable[[str], Any]
) -> None:
    """Links, pipes, endless devices, folders that are gone: never a traceback, and a predictor that starts."""
    deploy(CHURN, made)
    alter(files_of(made))
    if match != "churn_xgb version":  # an empty folder holds nothing that could be loaded
        with pytest.raises(Untrusted, match=match):
            trusted_models.load(registry.client().get_model_version(CHURN.model, made))
    restarted = predictor("champion")
    restarted.load()
    shutil.rmtree(files_of(made).parent)  # whoever copies this home next must not follow what was planted


@pytest.mark.parametrize(
    "source", ["/nope", "http://127.0.0.1:1/x", "", "models:/m-nope", "models:/churn_xgb/99", "::"]
)
def test_a_source_that_names_no_files_of_mlflow_is_untrusted(made: str, source: str) -> None:
    """The registry's row points elsewhere: nothing is fetched from there."""
    row(made, source=source, storage_location=source)
    with pytest.raises(Untrusted, match=f"churn_xgb version {made}"):
        trusted_models.load(registry.client().get_model_version(CHURN.model, made))


def test_a_version_is_bound_to_its_files_and_its_run(made: str) -> None:
    """An older model's source and signature in a newer row do not bring the older model back under a new number."""
    client = registry.client()
    first, newer = (client.get_model_version(CHURN.model, version) for version in ("1", made))
    client.set_model_version_tag(CHURN.model, made, trusted_models.SIGNATURE, first.tags[trusted_models.SIGNATURE])
    row(made, source=first.source, storage_location=first.source)
    refused(made, f"the run in the registry is {newer.run_id}, its MLmodel is of {first.run_id}")
    row(made, run_id=first.run_id)
    refused(made, f"its tag run_id is {newer.run_id}, its MLmodel is of {first.run_id}")
    client.set_model_version_tag(CHURN.model, made, "run_id", first.run_id)
    refused(made, f"is of run {first.run_id}, as version 1 is: a run is registered once")
    row(made, run_id=None)
    client.delete_model_version_tag(CHURN.model, made, "run_id")
    refused(made, "names no run")
    with pytest.raises(Untrusted, match="names no run"):
        trusted_models.verify(client.get_model_version(CHURN.model, made))


def test_a_home_that_was_moved_or_restored_elsewhere_still_verifies_its_models(
    made: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow writes absolute addresses into its database: they follow the home, also while the old one still stands."""
    before = settings().home
    for place in ("restored", "again with a space # and 東京"):
        shutil.copytree(before / "mlflow", tmp_path / place / "mlflow", symlinks=True)
        shutil.copytree(before / "keys", tmp_path / place / "keys")
        monkeypatch.setenv("PLUMBLINE_HOME", str(tmp_path / place))
        settings.cache_clear()
        found = registry.client().get_model_version(CHURN.model, made)
        assert trusted_models.load(found).run_id == found.run_id
        assert str(before) not in registry.client().get_run(found.run_id).info.artifact_uri
        (files_of(made) / "model.ubj").write_bytes(b"{}")
        with pytest.raises(Untrusted, match="was altered in model.ubj"):
            trusted_models.load(registry.client().get_model_version(CHURN.model, made))
        assert (before / "mlflow" / "artifacts").is_dir(), "and the old home was not touched"
    settings.cache_clear()


def canary(path: Path) -> bytes:
    """A pickle that creates the file `path` when it is read."""
    name = str(path).encode()
    return b"\x80\x02cbuiltins\nopen\nX" + len(name).to_bytes(4, "little") + name + b"X\x01\x00\x00\x00w\x86R."


def test_a_signed_model_is_deployed_and_the_gate_says_so(made: str) -> None:
    assert deploy(CHURN, made)["gates"]["model_signature"]["verdict"] == "passed"
    assert alias(registry.CHAMPION) == made


def test_an_unsigned_model_is_refused(made: str) -> None:
    registry.client().delete_model_version_tag(CHURN.model, made, trusted_models.SIGNATURE)
    refused(made, f"churn_xgb version {made} is not signed: `plumb register` signs")


@pytest.mark.parametrize("name", ["model.ubj", "MLmodel", "requirements.txt"])
def test_an_altered_file_is_named(made: str, name: str) -> None:
    with (files_of(made) / name).open("ab") as file:
        file.write(b"\n")
    refused(made, f"churn_xgb version {made} after it was signed was altered in {name}; it is not loaded")


def test_the_signature_of_another_model_does_not_count(made: str) -> None:
    other = registry.client().get_model_version(CHURN.model, "1").tags[trusted_models.SIGNATURE]
    registry.client().set_model_version_tag(CHURN.model, made, trusted_models.SIGNATURE, other)
    refused(made, "was altered in MLmodel, model.ubj")


def test_what_a_tag_says_counts_as_far_as_the_signed_files_agree(made: str) -> None:
    registry.client().set_model_version_tag(CHURN.model, made, "feature_service", "churn_v9")
    refused(made, "its tag feature_service says 'churn_v9', its signed MLmodel 'churn_v1'")


@pytest.mark.parametrize("name", ["model.pkl", "python_model.bin", "notes.txt"])
def test_a_planted_pickle_is_never_read(made: str, tmp_path: Path, name: str) -> None:
    sung = tmp_path / "sung"
    (files_of(made) / name).write_bytes(canary(sung))
    refused(made, f"holds {name}, which is no data file of an xgboost or ONNX model")
    source = registry.client().get_model_version(CHURN.model, made).source
    with pytest.raises(Untrusted, match=f"holds {name}"):
        trusted_models.sign(source, "it")
    assert not sung.exists()
    unpickle = f"import pickle; pickle.load(open({str(files_of(made) / name)!r}, 'rb'))"
    subprocess.run([sys.executable, "-c", unpickle], check=True, timeout=60)
    assert sung.exists(), "the canary sings when it is read"


@pytest.mark.parametrize(
    ("flavors", "match"),
    [
        ("{sklearn: {pickled_model: model.ubj}, xgboost: {data: model.ubj}}", "MLmodel says sklearn"),
        ("{python_function: {loader_module: mlflow.sklearn}, xgboost: {data: model.ubj}}", "loader mlflow.sklearn"),
        ("{python_function: {python_model: model.ubj}}", "expected an xgboost or an ONNX model"),
        ("{xgboost: {data: ../../model.ubj}}", "expected a file in xgboost's format beside it"),
        ("{xgboost: {data: requirements.txt}}", "expected a file in xgboost's format beside it"),
    ],
)
def test_a_flavor_that_runs_code_is_not_signed(made: str, flavors: str, match: str) -> None:
    (files_of(made) / "MLmodel").write_text(f"flavors: {flavors}\n")
    source = registry.client().get_model_version(CHURN.model, made).source
    with pytest.raises(Untrusted, match=match):
        trusted_models.sign(source, "it")


@pytest.fixture
def predictor() -> Iterator[Callable[[str], Any]]:
    """Makes a predictor of a model, not loaded yet; its threads end with the test."""
    from serving.churn.log import append
    from serving.churn.predictor import ChurnPredictor
    from serving.outcome_log import OutcomeLog

    made = []

    def make(model: str) -> Any:
        log = OutcomeLog(CHURN, append)
        made.append((ChurnPredictor(model, log), log))
        return made[-1][0]

    yield make
    for found, log in made:
        found.close()
        log.close()


def test_an_altered_champion_is_refused_at_a_restart_and_the_previous_one_serves(
    made: str, predictor: Callable[[str], Any], capsys: pytest.CaptureFixture[str]
) -> None:
    import asyncio

    deploy(CHURN, made)
    running = predictor("champion")
    running.load()
    (files_of(made) / "model.ubj").write_bytes(b"{}")
    asked = {"instances": [{"customer_id": FULL}]}
    assert asyncio.run(running.predict(asked))["model_version"] == made, "what is in memory was verified"
    for wanted in ("champion", made):
        restarted = predictor(wanted)
        restarted.load()
        answer = asyncio.run(restarted.predict(asked))
        assert (answer["model_version"], answer["refused_model_version"]) == ("1", made)
        told = capsys.readouterr().err
        assert f"REFUSED: churn_xgb version {made} after it was signed was altered in model.ubj" in told
        assert "the previous champion, version 1, serves in its place" in told
    assert instrument("model_refused").labels(product="churn", model_version=made)._value.get() == 1
    assert alias(registry.CHAMPION) == made, "who is champion is not for a predictor to say"

    back = deploy(CHURN, "previous")
    assert alias(registry.CHAMPION) == "1"
    assert alias(registry.PREVIOUS) == "1", "what is not trusted never becomes previous"
    assert f"churn_xgb version {made}" in back["champion_refused"]


def test_an_online_read_loads_no_dill_copy(dill_loads: list[str]) -> None:
    from serving.features import OnlineFeatures

    (row,) = OnlineFeatures(CHURN, "churn_v1").read([FULL])
    assert row.values["days_since_last_order"] is not None and dill_loads == []


def test_only_a_champion_has_a_stand_in(made: str, predictor: Callable[[str], Any]) -> None:
    (files_of(made) / "model.ubj").write_bytes(b"{}")
    with pytest.raises(Untrusted, match="was altered in model.ubj"):
        predictor(made).load()
    registry.client().set_registered_model_alias(CHURN.model, registry.CHAMPION, made)
    with pytest.raises(Untrusted, match="there is no previous champion to serve in its place"):
        predictor("champion").load()


def test_a_model_that_does_not_say_what_it_was_trained_on(made: str) -> None:
    import mlflow

    booster = registry.load(CHURN, made).trusted.booster
    experiment = registry.client().get_experiment_by_name(CHURN.model).experiment_id
    with mlflow.start_run(experiment_id=experiment):
        logged = mlflow.xgboost.log_model(booster, name="model", model_format="ubj", pip_requirements=["xgboost-cpu"])
    tags = {"signature": trusted_models.sign(logged.model_uri, "it")[0].bundle, "feature_service": "churn_v1"}
    version = mlflow.register_model(logged.model_uri, CHURN.model, tags=tags).version
    with pytest.raises(ServingError, match="does not say its feature_service"):
        registry.load(CHURN, str(version))
