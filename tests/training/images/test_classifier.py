"""The classifier as an ONNX file: what scikit-learn fitted, the same bytes in every process, and its measures."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from plumbline import files
from plumbline.settings import ROOT
from training.errors import TrainingError
from training.images import classifier, measures
from training.images.classifier import Params

SCRIPT = (
    "from tests.training.images.test_classifier import made; from training.images import classifier;"
    "from plumbline import files;"
    "print(files.sha256(classifier.fit(*made(), classifier.Params()).SerializeToString()))"
)


def made(classes: int = 3, rows: int = 240) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings of 64 numbers, one of them always the same, and what they show."""
    random = np.random.default_rng(7)
    at = np.arange(rows) % classes
    embeddings = random.normal(0, 1, (rows, 64)) + 0.5 * np.eye(classes, 64)[at] * 4
    embeddings[:, -1] = 5
    return embeddings.astype(np.float32), np.array([f"class {n}" for n in at], dtype=object)


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_it_says_what_scikit_learn_fitted(classes: int) -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    embeddings, labels = made(classes)
    content = classifier.fit(embeddings, labels, Params(c=0.5)).SerializeToString()
    scaled = StandardScaler().fit_transform(embeddings.astype(np.float64))
    plain = LogisticRegression(C=0.5, max_iter=1000, random_state=1997).fit(scaled, labels)
    assert classifier.classes(content) == list(plain.classes_)
    np.testing.assert_allclose(classifier.probabilities(content, embeddings), plain.predict_proba(scaled), atol=2e-5)
    assert classifier.described(content).startswith("embedding tensor(float) ['n', 64]: class 0, class 1")


def test_another_process_makes_the_same_bytes() -> None:
    here = files.sha256(classifier.fit(*made(), Params()).SerializeToString())
    told = subprocess.run([sys.executable, "-c", SCRIPT], cwd=ROOT, capture_output=True, text=True, check=True)
    assert told.stdout.split() == [here]


def test_a_solver_that_does_not_converge_is_no_model() -> None:
    with pytest.raises(TrainingError, match="does not converge in 1 steps on 240 embeddings"):
        classifier.fit(*made(), Params(c=100.0, max_iter=1))


def test_a_model_that_is_not_what_was_fitted_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = classifier.to_onnx
    monkeypatch.setattr(
        classifier, "to_onnx", lambda weights, bias, names: whole(weights, bias + np.array([1, 0, 0]), names)
    )
    with pytest.raises(TrainingError, match="it is not what was fitted"):
        classifier.fit(*made(), Params())


def test_measures_of_a_known_case() -> None:
    labels = np.array(["a", "a", "b", "c"], dtype=object)
    said = np.array([[0.8, 0.2], [0.4, 0.6], [0.1, 0.9], [0.5, 0.5]])
    found = measures.metrics(labels, said, ["a", "b"], "x_")
    assert found["x_accuracy"] == 0.5
    assert (found["x_recall_a"], found["x_recall_b"]) == (0.5, 1.0)
    # A label that is no class of the model costs as much as a certain mistake: 13.8 nats.
    expected = -np.mean(np.log([0.8, 0.4, 0.9, 1e-6]))
    assert found["x_log_loss"] == pytest.approx(expected, abs=1e-6)
    assert measures.confusion(labels[:3], ["a", "b", "b"], ["a", "b"]).tolist() == [[1, 1], [0, 1]]
    assert measures.shares(labels, ["a", "b", "c"], 2).tolist() == [[0.5, 0.25, 0.25]] * 2


def test_names_of_classes_become_names_of_metrics() -> None:
    assert measures.slugs(["Smileys & Emotion", "Flags"]) == ["smileys_emotion", "flags"]
    assert measures.slugs(["a b", "a-b", "☂"]) == ["a_b_c8687a", "a_b_d44362", "07472e"]
    assert measures.slugs(["café"]) == measures.slugs(["a", "café", "cafe"])[1:2] == ["caf_850f7d"]
