"""The classifier of images: multinomial logistic regression on embeddings, as one small ONNX file.

The embeddings are standardised by the training rows; that is folded into the weights, so that the model takes an
embedding as it is stored. Same rows, parameters and environment give the same bytes: one thread, a fixed start, and an
ONNX file that is put together by hand.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from training.errors import TrainingError

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

INPUT, OUTPUT, CLASSES = "embedding", "probabilities", "classes"
IR_VERSION, OPSET = 8, 17
CLOSE = 1e-4
"""How far the ONNX model, in float32, may be from scikit-learn's float64 in a probability."""


@dataclass(frozen=True)
class Params:
    """`c` is the inverse of the L2 penalty's strength, on standardised embeddings."""

    c: float = 0.03
    max_iter: int = 1_000
    tolerance: float = 1e-4
    seed: int = 1997


def fit(embeddings: NDArray[Any], labels: NDArray[Any], params: Params) -> onnx.ModelProto:
    """The model of n embeddings (n, d) float32 and n labels (text), of two classes or more.

    Raises TrainingError when the solver does not converge, or the ONNX model is not what scikit-learn fitted.
    """
    import warnings

    import numpy as np
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    exact = embeddings.astype(np.float64)
    mean, spread = exact.mean(axis=0), exact.std(axis=0)
    spread = np.where(spread > 0, spread, 1.0)
    scaled = (exact - mean) / spread
    solver = LogisticRegression(
        C=params.c, solver="lbfgs", max_iter=params.max_iter, tol=params.tolerance, random_state=params.seed
    )
    with threadpool_limits(limits=1), warnings.catch_warnings(action="error", category=ConvergenceWarning):
        try:
            solver.fit(scaled, labels)
        except ConvergenceWarning:
            raise TrainingError(
                f"the classifier does not converge in {params.max_iter} steps on {len(labels):,} embeddings: give it "
                "more (max_iter), or a stronger penalty (a smaller c), in training/images/classifier.py"
            ) from None
        expected = solver.predict_proba(scaled)
    weights, bias = solver.coef_, solver.intercept_
    if len(solver.classes_) == 2:  # one score then, of the second class; the first one's is 0
        weights, bias = np.vstack([np.zeros_like(weights), weights]), np.append(0.0, bias)
    model = to_onnx((weights / spread).T, bias - (weights / spread) @ mean, [str(name) for name in solver.classes_])
    apart = float(np.abs(probabilities(model.SerializeToString(), embeddings) - expected).max())
    if not apart <= CLOSE:
        raise TrainingError(
            f"the ONNX model's probabilities are up to {apart:.2g} from scikit-learn's, at most {CLOSE} was expected: "
            "it is not what was fitted"
        )
    return model


def to_onnx(weights: NDArray[Any], bias: NDArray[Any], classes: Sequence[str]) -> onnx.ModelProto:
    """`probabilities = softmax(embedding @ weights + bias)`: weights (d, k), bias (k,), k class names."""
    import numpy as np
    from onnx import TensorProto, checker, helper, numpy_helper

    rows, columns = weights.shape
    graph = helper.make_graph(
        [
            helper.make_node("Gemm", [INPUT, "weights", "bias"], ["scores"]),
            helper.make_node("Softmax", ["scores"], [OUTPUT], axis=1),
        ],
        "image_classifier",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["n", rows])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["n", columns])],
        [
            numpy_helper.from_array(weights.astype(np.float32), "weights"),
            numpy_helper.from_array(bias.astype(np.float32), "bias"),
        ],
    )
    opset = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(graph, producer_name="plumbline", ir_version=IR_VERSION, opset_imports=opset)
    name_classes(model, classes)
    checker.check_model(model, full_check=True)
    return model


def name_classes(model: onnx.ModelProto, names: Sequence[str]) -> None:
    """Writes the class names into the model's file, in the order of its probabilities."""
    from onnx import helper

    helper.set_model_props(model, {CLASSES: json.dumps(list(names))})


def probabilities(content: bytes, embeddings: NDArray[Any]) -> NDArray[Any]:
    """What a model's file gives n embeddings (n, d): (n, k) float32, on one thread."""
    import numpy as np

    session = _session(content)
    found: NDArray[Any] = session.run([OUTPUT], {INPUT: np.ascontiguousarray(embeddings, dtype=np.float32)})[0]
    return found


def classes(content: bytes) -> list[str]:
    """The class names of a model's file, in the order of its probabilities."""
    found: list[str] = json.loads(_session(content).get_modelmeta().custom_metadata_map[CLASSES])
    return found


def described(content: bytes) -> str:
    """Inputs and classes of a model's file, as a sentence to compare."""
    (given,) = _session(content).get_inputs()
    return f"{given.name} {given.type} {given.shape}: {', '.join(classes(content))}"


def _session(content: bytes) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
