"""A model from a folder, as a pod gets it: the signature comes from the environment and must be over those files."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from plumbline.errors import SettingsError
from plumbline.registry import signing
from plumbline.registry.signing import Untrusted
from plumbline.servers import services
from plumbline.settings import settings
from products.churn import CHURN
from serving import launch, model_folder
from serving import loaded_model as registry
from serving.churn.scorer import Scorer
from tests.serving import as_a_pod
from tests.serving.as_a_pod import read_only
from tests.serving.made_up_customers import FULL, eventually

pytestmark = pytest.mark.usefixtures("_home_settings")

VERSION = {"PLUMBLINE_MODEL_VERSION": "1"}
Given = Callable[..., None]


@pytest.fixture
def folder(serving_home: Path, tmp_path: Path) -> Path:
    """A copy of version 1's files, as a storage initializer makes one."""
    source = registry.client().get_model_version(CHURN.model, "1").source
    files = settings().home / "mlflow" / "artifacts" / "models" / source.rpartition("/")[2] / "artifacts"
    return Path(shutil.copytree(files, tmp_path / "models"))


def bundle() -> str:
    return registry.client().get_model_version(CHURN.model, "1").tags["signature"]


@pytest.fixture
def given(serving_home: Path, monkeypatch: pytest.MonkeyPatch) -> Given:
    """Sets what a pod's annotations would; None takes one away."""

    def give(**changed: str | None) -> None:
        wanted = {"version": "1", "signature": signing.packed(bundle()), "digest": None, "run": None, **changed}
        for name, value in wanted.items():
            if value is None:
                monkeypatch.delenv(f"PLUMBLINE_MODEL_{name.upper()}", raising=False)
            else:
                monkeypatch.setenv(f"PLUMBLINE_MODEL_{name.upper()}", value)
        settings.cache_clear()

    return give


def test_it_scores_as_the_registry_s_version_does(folder: Path, given: Given) -> None:
    run = registry.client().get_model_version(CHURN.model, "1").run_id
    given(digest=signing.digest(bundle()), run=run)
    theirs, ours = Scorer("1"), Scorer(folder)
    assert ours.model.version == "1" and ours.model.feature_service == theirs.model.feature_service == "churn_v1"
    (of_registry,), (of_folder,) = theirs.score([FULL]).predictions, ours.score([FULL]).predictions
    assert of_folder.probability == of_registry.probability


def test_a_bundle_survives_its_packing() -> None:
    text = json.dumps({"dsseEnvelope": "x" * 5000})
    assert signing.unpacked(signing.packed(text), "it") == text
    assert signing.packed(text) == signing.packed(text), "the same bundle is the same annotation: no canary of itself"
    assert len(signing.packed(text)) < 200 and "\n" not in signing.packed(text)


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"signature": None}, "churn_xgb version 1 is not signed"),
        ({"signature": "none"}, "version 1 has a signature that cannot be read"),
        ({"signature": signing.packed("{}")}, "version 1 has a signature that cannot be read"),
        ({"digest": "sha256:" + 64 * "0"}, "PLUMBLINE_MODEL_DIGEST is sha256:0000.* its signed files are of sha256:"),
        ({"run": "another"}, "PLUMBLINE_MODEL_RUN is another, its signed files are of"),
    ],
)
def test_what_the_pod_says_must_be_what_is_signed(
    changed: dict[str, str | None], match: str, folder: Path, given: Given
) -> None:
    given(**changed)
    with pytest.raises(Untrusted, match=match):
        model_folder.load(CHURN, folder)


def test_a_folder_does_not_say_its_version(folder: Path, given: Given) -> None:
    given(version=None)
    with pytest.raises(SettingsError, match="PLUMBLINE_MODEL_VERSION is not set"):
        model_folder.load(CHURN, folder)


@pytest.mark.parametrize("name", ["model.ubj", "MLmodel", "requirements.txt"])
def test_an_altered_file_is_named(folder: Path, given: Given, name: str) -> None:
    given()
    with (folder / name).open("ab") as file:
        file.write(b"\n")
    with pytest.raises(Untrusted, match=f"after it was signed was altered in {name}; it is not loaded"):
        model_folder.load(CHURN, folder)


def test_nothing_may_be_missing_added_or_linked(folder: Path, given: Given, tmp_path: Path) -> None:
    given()
    (folder / "notes.txt").write_text("what else")
    with pytest.raises(Untrusted, match="was given notes.txt"):
        model_folder.load(CHURN, folder)
    (folder / "notes.txt").unlink()
    (folder / "conda.yaml").rename(tmp_path / "conda.yaml")
    with pytest.raises(Untrusted, match="lacks conda.yaml"):
        model_folder.load(CHURN, folder)
    (folder / "conda.yaml").symlink_to(tmp_path / "conda.yaml")
    with pytest.raises(Untrusted, match="holds a symbolic link: conda.yaml"):
        model_folder.load(CHURN, folder)
    with pytest.raises(Untrusted, match="is no folder; expected the files that were signed"):
        model_folder.load(CHURN, tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["model.pkl", "python_model.txt"])
def test_a_planted_pickle_is_never_read(folder: Path, given: Given, tmp_path: Path, name: str) -> None:
    sung = tmp_path / "sung"
    path = str(sung).encode()
    pickled = b"\x80\x02cbuiltins\nopen\nX" + len(path).to_bytes(4, "little") + path + b"X\x01\x00\x00\x00w\x86R."
    (folder / name).write_bytes(pickled)
    given(signature=signing.packed(signing.sign(folder).bundle))
    with pytest.raises(Untrusted, match=f"holds {name}, which is no data file of an xgboost or ONNX model"):
        model_folder.load(CHURN, folder)
    assert not sung.exists(), "signed or not"


def test_a_pod_s_predictor_needs_no_registry_and_writes_where_it_may(
    folder: Path, given: Given, tmp_path: Path
) -> None:
    """The very arguments of the ServingRuntime, in an empty home and on a read-only root, with its image's packages
    alone: health, a score, SIGTERM. Then the judge reads what was logged."""
    from plumbline.servers import online_store

    given()
    home, tmp, port = tmp_path / "home", tmp_path / "tmp", services.free_port()
    home.mkdir()
    tmp.mkdir()
    env = {name: value for name, value in os.environ.items() if not name.startswith("PROMETHEUS_")}  # Feast's, here
    env |= {"PLUMBLINE_REDIS_URL": online_store.url(), "PLUMBLINE_HOME": str(home), "HOME": str(tmp)}
    env |= {"PLUMBLINE_VERIFY_KEY": str(settings().home / "keys" / "demo-verify.pem"), "TMPDIR": str(tmp)}
    env |= as_a_pod.locked(tmp_path)
    serve = read_only(as_a_pod.command(CHURN, folder, port), home, tmp)
    with subprocess.Popen(serve, env=env, cwd="/", stderr=subprocess.PIPE) as pod:
        try:
            ready = f"http://{services.HOST}:{port}{launch.ready(CHURN)}"
            eventually(lambda: pod.poll() is not None or services.answers(ready, 2), 60)
            assert pod.poll() is None, pod.stderr.read().decode()[-2000:] if pod.stderr else ""
            asked = json.dumps({"instances": [{"customer_id": FULL}]}).encode()
            url = f"http://127.0.0.1:{port}/v1/models/churn-predictor:predict"
            with urllib.request.urlopen(url, asked, timeout=10) as answer:
                told = json.load(answer)
            assert told["model_version"] == "1" and told["predictions"][0]["customer_id"] == FULL
        finally:
            pod.send_signal(signal.SIGTERM)
            pod.communicate(timeout=30)
    assert {path.name for path in home.iterdir()} == {"feast", "lake", "lineage.ndjson"}
    judge = [sys.executable, "-B", "-m", "plumb", "judge", "--once", "--json"]
    judged = subprocess.run(judge, env=env, cwd="/", capture_output=True, text=True, check=False, timeout=60)
    assert (judged.returncode, judged.stdout) == (0, '{"verdicts": []}\n'), judged.stderr
