"""Integer convolutions with static and with dynamic ranges, beside FP32.

    python benchmarks/convolution_forms.py [--rounds 30] [--threads 2]

The stem of the released image classifier, patches as the shipped models read them, and a convolution that is a product
of matrices, on ONNX Runtime as sessions open it. Variants alternate. Writes benchmarks/results/convolution-forms.json.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper
from record import write

from perceiver_runtime.backends.integer_products import avoid_saturation
from perceiver_runtime.benchmark.statistics import Ratio, ratio
from perceiver_runtime.benchmark.timing import interleave

import onnxruntime as ort

FP32, STATIC, DYNAMIC = "fp32", "QLinearConv", "ConvInteger"
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Size:
    """Pixels of a side, channels in and out, kernel and stride."""

    name: str
    side: int
    inputs: int
    outputs: int
    kernel: int
    stride: int


SIZES = (
    Size("7 x 7 of 224 x 224 x 3 to 64, stride 2", 224, 3, 64, 7, 2),
    Size("4 x 4 of 28 x 28 x 1 to 64, stride 4", 28, 1, 64, 4, 4),
    Size("1 x 1 of 56 x 56 x 64 to 256", 56, 64, 256, 1, 1),
)


@dataclass(frozen=True)
class Row:
    """One size in one form: median milliseconds, and FP32's time / this."""

    size: str
    form: str
    milliseconds: float
    ratio: Ratio


def convolution(size: Size, form: str) -> onnx.ModelProto:
    random = np.random.default_rng(0)
    weight = random.standard_normal((size.outputs, size.inputs, size.kernel, size.kernel), dtype=np.float32)
    scale = (np.abs(weight).max(axis=(1, 2, 3)) / 127).astype(np.float32)
    integers = np.rint(weight / scale[:, None, None, None]).astype(np.int8)
    pads = [size.kernel // 2 if size.stride < size.kernel else 0] * 4
    attributes = {"strides": [size.stride] * 2, "pads": pads, "kernel_shape": [size.kernel] * 2}
    nodes, constants = {FP32: _single, STATIC: _static, DYNAMIC: _dynamic}[form](weight, integers, scale, attributes)
    ports = [("x", ["batch", size.inputs, size.side, size.side]), ("y", ["batch", size.outputs, "height", "width"])]
    x, y = (helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in ports)  # type: ignore[arg-type]
    stored = [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "convolution", [x], [y], stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


Parts = tuple[list[onnx.NodeProto], dict[str, Any]]


def _single(weight: Floats, integers: Any, scale: Floats, attributes: dict[str, Any]) -> Parts:
    return [helper.make_node("Conv", ["x", "w"], ["y"], **attributes)], {"w": weight}


def _static(weight: Floats, integers: Any, scale: Floats, attributes: dict[str, Any]) -> Parts:
    """Ranges that hold the inputs and outputs of normal numbers."""
    deviation = np.sqrt(weight[0].size)
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "xs", "middle"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "xs", "middle"], ["xd"]),
        helper.make_node("DequantizeLinear", ["w", "ws", "zero"], ["wd"], axis=0),
        helper.make_node("Conv", ["xd", "wd"], ["c"], **attributes),
        helper.make_node("QuantizeLinear", ["c", "ys", "middle"], ["cq"]),
        helper.make_node("DequantizeLinear", ["cq", "ys", "middle"], ["y"]),
    ]
    zeros = {"middle": np.uint8(128), "zero": np.zeros(scale.shape, np.int8)}
    return nodes, {
        "w": integers,
        "ws": scale,
        "xs": np.float32(8 / 255),
        "ys": np.float32(8 * deviation / 255),
        **zeros,
    }


def _dynamic(weight: Floats, integers: Any, scale: Floats, attributes: dict[str, Any]) -> Parts:
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["xq", "xs", "xz"]),
        helper.make_node("ConvInteger", ["xq", "w", "xz"], ["i"], **attributes),
        helper.make_node("Cast", ["i"], ["f"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Mul", ["xs", "ws"], ["s"]),
        helper.make_node("Mul", ["f", "s"], ["y"]),
    ]
    return nodes, {"w": integers, "ws": scale[:, None, None]}


def session(model: onnx.ModelProto, threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    avoid_saturation(options)
    return ort.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    rows = []
    for size in SIZES:
        x = np.random.default_rng(1).standard_normal((1, size.inputs, size.side, size.side), dtype=np.float32)
        opened = {form: session(convolution(size, form), given.threads) for form in (FP32, STATIC, DYNAMIC)}
        calls = {form: partial(each.run, None, {"x": x}) for form, each in opened.items()}
        times = interleave(calls, given.rounds)
        rows += [Row(size.name, f, float(np.median(t)), ratio(times[FP32], t)) for f, t in times.items()]
    for row in rows:
        print(f"{row.size}, {row.form}: {row.milliseconds:.3f} ms, {row.ratio}", flush=True)
    write("convolution-forms", {"rounds": given.rounds, "threads": given.threads, "rows": rows})


if __name__ == "__main__":
    main()
