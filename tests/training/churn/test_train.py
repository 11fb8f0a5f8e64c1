from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from plumbline import files
from plumbline.errors import Conflict
from plumbline.lineage import graph
from plumbline.lineage.runs import EventFile
from plumbline.registry import trusted_models
from plumbline.registry.signing import Untrusted
from plumbline.settings import ROOT, settings
from plumbline.state import objects, trainings
from plumbline.state.trainings import Place, place
from products.churn import CHURN
from training import datasets, register, runs, tracking, variants
from training.churn import model
from training.churn import train as training
from training.churn.shelf import SHELF
from training.errors import TrainingError
from training.register import judge

Shop = Callable[[int], dict[str, Any]]


def train(release: int | None = None) -> dict[str, Any]:
    return runs.train(place(CHURN, release))


@pytest.fixture(scope="module")
def first(shop: Shop) -> dict[str, Any]:
    """Release 1, trained."""
    shop(1)
    return train()


def test_without_a_dataset_nothing_is_trained(shop: Shop, first: dict[str, Any]) -> None:
    about = datasets.folder(Place(CHURN, 1)) / "dataset.json"
    kept = about.read_text()
    about.unlink()
    with pytest.raises(TrainingError, match="run `plumb dataset --release 1` first"):
        train(1)
    files.write_whole(about, kept)


def test_a_run_names_what_it_was_made_from(shop_home: Path, first: dict[str, Any]) -> None:
    assert first["state"] == "done"
    about = datasets.load(Place(CHURN, 1)).about
    run = tracking.client().get_run(first["versions"]["mlflow_run_id"])
    named = ("data_version", "dataset_id", "cutoff", "feature_service", "lock_hash", "code_sha")
    assert {name: run.data.params[name] for name in named} == {name: about[name] for name in named}
    assert run.data.params["dataset_hash"] == about["content_hash"]
    assert {"seed", "max_depth", "release_id", "bgnbd_r"} <= set(run.data.params)
    names = {"roc_auc", "pr_auc", "log_loss", "brier"}
    prefixed = {f"{prefix}{name}" for prefix in ("", "baseline_recency_", "baseline_bgnbd_") for name in names}
    assert prefixed | {"base_rate"} <= set(run.data.metrics)
    assert run.data.metrics["roc_auc"] > 0.6


def test_the_artifacts_hold_no_pickle_and_stay_in_home(shop_home: Path, first: dict[str, Any]) -> None:
    files_found = [path for path in (shop_home / "mlflow" / "artifacts").rglob("*") if path.is_file()]
    names = {path.name for path in files_found}
    assert {
        "model.ubj",
        "dataset.json",
        "calibration.png",
        "precision_recall.png",
        "roc.png",
        "feature_importance.png",
    } <= names
    assert not [path for path in files_found if path.suffix in {".pkl", ".pickle", ".joblib", ".dill"}]
    # A pickle of any protocol since 2 begins with these bytes and ends with a full stop.
    heads = [path.read_bytes() for path in files_found]
    assert not [head for head in heads if head[:1] == b"\x80" and head[1:2] <= b"\x05" and head[-1:] == b"."]
    requirements = next(path for path in files_found if path.name == "requirements.txt").read_text().splitlines()
    assert {line.partition("==")[0] for line in requirements} == set(training.SERVED_WITH)


def test_the_logged_model_gives_the_same_probabilities(shop_home: Path, first: dict[str, Any]) -> None:
    import mlflow.pyfunc
    import numpy as np

    run = runs.load(Place(CHURN, 1))
    data = datasets.load(Place(CHURN, 1))
    served = mlflow.pyfunc.load_model(run["model_uri"])
    rows = model.matrix(data.part(test=True), data.features)
    booster = model.fit(data.part(test=False), data.features, model.Params())
    assert np.array_equal(served.predict(rows), model.probability(booster, data.part(test=True)))
    assert served.metadata.get_input_schema().input_names() == data.features


def test_again_changes_nothing_and_anew_gives_the_same_bytes(shop_home: Path, first: dict[str, Any]) -> None:
    again = train()
    assert again["state"] == "unchanged"
    assert again["versions"] == first["versions"]
    objects.delete(Place(CHURN, 1).key(trainings.RUN))
    anew = train()
    assert anew["state"] == "done"
    assert anew["versions"]["model_sha256"] == first["versions"]["model_sha256"]
    assert anew["versions"]["mlflow_run_id"] != first["versions"]["mlflow_run_id"]
    assert anew["metrics"] == first["metrics"]


def test_constraints_hold_and_name_known_features(shop_home: Path, first: dict[str, Any]) -> None:
    import numpy as np

    data = datasets.load(Place(CHURN, 1))
    rows = data.part(test=False)
    booster = model.fit(rows, data.features, model.Params())
    one = rows.head(1)
    silent = one.loc[one.index.repeat(400)].assign(days_since_last_order=np.arange(400))
    assert (np.diff(model.probability(booster, silent)) >= 0).all()
    with pytest.raises(TrainingError, match=r"constraints on days_since_last_order, .* out of model.monotone"):
        model.fit(rows, ["orders_90d"], model.Params())
    with pytest.raises(TrainingError, match="lack the model inputs colour"):
        model.matrix(rows, ["colour"])
    without = replace(data, about=data.about | {"features": ["orders_90d", "orders_total"]})
    with pytest.raises(TrainingError, match="recency baseline needs days_since_last_order, which churn_v1 does not"):
        training._scores(booster, without, rows, data.part(test=True))


def test_the_rule() -> None:
    assert judge(0.30, 0.31) == (
        True,
        "log loss 0.3000 against the champion's 0.3100 on the same test rows: not worse by more than 0.002",
    )
    assert judge(0.3119, 0.31)[0]
    accepted, why = judge(0.3125, 0.31)
    assert not accepted
    assert why.endswith("worse by 0.0025, more than 0.002 is not accepted")


@pytest.mark.parametrize("place", ["plumb/commands/model.py", "docs/tutorials/add-a-feature.md"])
def test_the_rule_is_told_as_it_is(place: str) -> None:
    told = " ".join((ROOT / place).read_text().split())
    assert f"at most {register.TOLERANCE} nats above the champion's on the same test rows" in told


def test_a_run_is_registered_once_and_only_what_is_not_worse_challenges(
    shop: Shop, first: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    client = tracking.client()

    def challenger() -> str | None:
        aliases = client.get_registered_model(CHURN.model).aliases
        return str(aliases[tracking.CHALLENGER]) if tracking.CHALLENGER in aliases else None

    one = register.register(place(CHURN))
    assert one["state"] == "done"
    assert one["what"] == "churn_xgb version 1 is challenger: there is no champion yet"
    assert register.register(place(CHURN))["state"] == "unchanged"
    version = client.get_model_version(CHURN.model, "1")
    run = runs.load(Place(CHURN, 1))
    assert {name: version.tags[name] for name in register.tags(SHELF)} == {
        name: str(run[name]) for name in register.tags(SHELF)
    }
    assert version.tags["run_id"] == version.run_id == run["mlflow_run_id"]

    # What `plumb deploy` does with the first one.
    client.set_registered_model_alias(CHURN.model, tracking.CHAMPION, "1")
    client.delete_registered_model_alias(CHURN.model, tracking.CHALLENGER)
    assert register.register(place(CHURN))["state"] == "unchanged"
    assert challenger() is None

    good = model.Params
    monkeypatch.setattr(model, "Params", lambda: replace(good(), rounds=2))
    shop(2)
    train()
    worse = register.register(place(CHURN))
    assert "churn_xgb version 2 holds no alias: log loss" in worse["what"]
    assert "is not accepted" in worse["what"]
    assert challenger() is None
    assert register.register(place(CHURN))["state"] == "unchanged"

    monkeypatch.setattr(model, "Params", good)
    shop(3)
    train()
    equal = register.register(place(CHURN))
    assert "churn_xgb version 3 is challenger: log loss" in equal["what"]
    assert challenger() == "3"
    champion = register.champion_of(client, CHURN)
    assert champion is not None
    assert str(champion.version) == "1"

    shop(4)
    with pytest.raises(TrainingError, match="no model of release 4 yet: run `plumb train --release 4` first"):
        register.register(place(CHURN))


def test_a_version_is_signed_by_the_key_of_the_day_and_only_if_it_is_what_was_trained(
    shop: Shop, first: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    client = tracking.client()
    shop(5)
    train(5)
    register.register(Place(CHURN, 5))
    version = register.version_of(client, CHURN, runs.load(Place(CHURN, 5))["mlflow_run_id"])
    assert version is not None and version.tags["signed_by"].startswith("this home's demo key ")
    assert trusted_models.load(version).metadata["release_id"] == "5"

    # Another key: what it does not vouch for yet is signed anew, by it.
    private = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    monkeypatch.setenv("PLUMBLINE_SIGNING_KEY", private.decode())
    settings.cache_clear()
    with pytest.raises(Untrusted, match="by another key"):
        trusted_models.load(version)
    assert register.register(Place(CHURN, 5))["signed_by"].startswith("key ")
    version = client.get_model_version(CHURN.model, version.version)
    assert trusted_models.load(version).booster.feature_names == datasets.load(Place(CHURN, 5)).features

    # What lies in MLflow is another model than the one that was trained: the next key does not vouch for it.
    monkeypatch.delenv("PLUMBLINE_SIGNING_KEY")
    settings.cache_clear()
    stored = next((settings().home / "mlflow").rglob(f"{runs.load(Place(CHURN, 5))['model_id']}/artifacts/model.ubj"))
    rows = datasets.load(Place(CHURN, 5))
    model.fit(rows.part(test=False), rows.features, model.Params(rounds=2)).save_model(stored)
    with pytest.raises(TrainingError, match="was altered in MLflow and is not signed"):
        register.register(Place(CHURN, 5))


def test_a_champion_that_is_not_trusted_is_no_measure(shop: Shop, first: dict[str, Any]) -> None:
    client = tracking.client()
    client.delete_model_version_tag(CHURN.model, "1", trusted_models.SIGNATURE)
    shop(6)
    train(6)
    told = register.register(Place(CHURN, 6))
    assert "is challenger: the champion is not trusted, so it is no measure: churn_xgb version 1 is not" in told["what"]


@pytest.mark.parametrize(("fate", "number"), [("altered", 7), ("gone", 8), ("no model", 9)])
def test_an_altered_model_is_trained_again_and_becomes_a_new_version(
    shop: Shop, first: dict[str, Any], fate: str, number: int
) -> None:
    client = tracking.client()
    shop(number)
    train(number)
    old, was = register.register(Place(CHURN, number))["versions"]["version"], runs.load(Place(CHURN, number))
    stored = next((settings().home / "mlflow").rglob(f"{was['model_id']}/artifacts/model.ubj"))
    content = bytearray(stored.read_bytes())
    content[len(content) // 2] ^= 1
    if fate == "altered":
        stored.write_bytes(content)
    elif fate == "gone":
        stored.unlink()
    else:
        stored.with_name("MLmodel").write_text("{")
    assert train(number)["state"] == "done"
    assert train(number)["state"] == "unchanged"
    told = register.register(Place(CHURN, number))
    assert told["state"] == "done" and int(told["versions"]["version"]) == int(old) + 1
    now = client.get_model_version_by_alias(CHURN.model, tracking.CHALLENGER)
    assert str(now.version) == told["versions"]["version"]
    assert trusted_models.load(now).run_id == runs.load(Place(CHURN, number))["mlflow_run_id"] != was["mlflow_run_id"]
    assert runs.load(Place(CHURN, number))["model_sha256"] == was["model_sha256"]
    with pytest.raises(Exception, match=r"after it was signed|model.ubj|expected"):
        trusted_models.load(client.get_model_version(CHURN.model, old))


def test_training_waits_for_nobody(shop_home: Path, first: dict[str, Any]) -> None:
    with datasets.working(CHURN, "train"), pytest.raises(Conflict, match="another training of churn"):
        train()


@pytest.mark.parametrize("kind", ["retrained", "leaky"])
def test_a_model_made_for_a_rollout_leads_back_to_its_dataset(
    shop_home: Path, first: dict[str, Any], kind: str
) -> None:
    register.register(place(CHURN))
    made, dataset = variants.register(CHURN, kind, 1), datasets.load(Place(CHURN, 1)).about["dataset_id"]
    version = tracking.client().get_model_version(CHURN.model, made["version"])
    known = graph.of(made["version"], EventFile(), CHURN)
    run = f"runs.churn_xgb@{version.run_id}"
    assert known.made_from(f"models.churn_xgb@{made['version']}") == [run]
    assert known.made_from(run) == [f"training.churn@{dataset}"]
    assert version.tags["variant"] == kind and not version.aliases
