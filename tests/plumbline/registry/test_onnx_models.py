"""The second format that is loaded: one ONNX file, alone, signed; what else may pass for one is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from plumbline.registry import signing, trusted_models
from plumbline.registry.signing import Untrusted
from plumbline.registry.trusted_models import TrustedModel

MLMODEL = """flavors:
  onnx: {data: model.onnx, onnx_version: 1.23.2, code: null}
  python_function: {data: model.onnx, loader_module: mlflow.onnx}
metadata: {classes: '["a", "b"]'}
run_id: r1
"""


def classifier() -> onnx.ModelProto:
    """Two numbers in, two probabilities out."""
    nodes = [
        helper.make_node("Gemm", ["embedding", "weights", "bias"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["probabilities"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "classifier",
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", 2])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", 2])],
        [numpy_helper.from_array(np.eye(2, dtype="f4"), "weights"), numpy_helper.from_array(np.zeros(2, "f4"), "bias")],
    )
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])


@pytest.fixture
def folder(home: Path, tmp_path: Path) -> Path:
    made = tmp_path / "model"
    made.mkdir()
    (made / "MLmodel").write_text(MLMODEL)
    (made / "model.onnx").write_bytes(classifier().SerializeToString())
    (made / "requirements.txt").write_text("onnxruntime\n")
    return made


def loaded(folder: Path) -> TrustedModel:
    """What a folder holds that whoever has the key signed as it is."""
    return trusted_models.load_folder(folder, signing.sign(folder).bundle, "the model")


def test_a_signed_onnx_file_is_loaded_as_its_bytes(folder: Path) -> None:
    model = loaded(folder)
    assert model.onnx == (folder / "model.onnx").read_bytes()
    assert (model.run_id, model.metadata["classes"]) == ("r1", '["a", "b"]')
    with pytest.raises(Untrusted, match="expected an xgboost model, what was signed is an ONNX model"):
        _ = model.booster


def test_one_that_was_altered_after_it_was_signed_is_refused_by_name(folder: Path) -> None:
    bundle = signing.sign(folder).bundle
    content = bytearray((folder / "model.onnx").read_bytes())
    content[-40] ^= 1
    (folder / "model.onnx").write_bytes(content)
    with pytest.raises(Untrusted, match=r"was altered in model\.onnx"):
        trusted_models.load_folder(folder, bundle, "the model")


def weights_elsewhere(folder: Path) -> None:
    model = classifier()
    tensor = model.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.ClearField("raw_data")
    tensor.external_data.add(key="location", value="weights.json")
    (folder / "weights.json").write_bytes(np.eye(2, dtype="f4").tobytes())
    (folder / "model.onnx").write_bytes(model.SerializeToString())


def pickled(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(b"\x80\x04N.")


def replaced(before: str, after: str) -> Callable[[Path], object]:
    return lambda folder: (folder / "MLmodel").write_text(MLMODEL.replace(before, after))


@pytest.mark.parametrize(
    ("alter", "told"),
    [
        (weights_elsewhere, r"model\.onnx (keeps weights in other files|is no ONNX model)"),
        (pickled, r"holds model\.onnx, which is no data file"),
        (lambda folder: (folder / "model.onnx").write_bytes(b"\x08 no model"), r"model\.onnx is no ONNX model"),
        (lambda folder: (folder / "model.onnx").write_bytes(b"{}"), "expected a file in onnx's format beside it"),
        (lambda folder: (folder / "more.ubj").write_bytes(b"{}"), r"holds more\.ubj beside model\.onnx"),
        (lambda folder: (folder / "code.py").write_text("1"), r"holds code\.py, which is no data file"),
        (replaced("onnx: {data", "sklearn: {data"), "MLmodel says sklearn"),
        (replaced("  onnx: {", "  xgboost: {data: x.ubj}\n  onnx: {"), "MLmodel says onnx, python_function, xgboost"),
        (replaced("mlflow.onnx", "mlflow.sklearn"), r"MLmodel says loader mlflow\.sklearn"),
        (replaced("{data: model.onnx, onnx", "{data: ../model.onnx, onnx"), "expected a file in onnx's format beside"),
    ],
)
def test_what_only_looks_like_one_is_refused_though_it_is_signed(
    folder: Path, alter: Callable[[Path], object], told: str
) -> None:
    alter(folder)
    with pytest.raises(Untrusted, match=told):
        loaded(folder)
