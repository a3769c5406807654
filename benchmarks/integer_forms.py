"""Speed of integer matrix products: a chain of products in every form, on both CPU backends.

    python benchmarks/integer_forms.py [--rounds 30] [--threads 2] [--rows 256] [--width 1280] [--layers 4]

Q/DQ graphs: activations per tensor, weights per channel, biases left out. `7-bit` weights are what quantisers call
reduced range: sums of two products then fit into 16 bits. The kernel is the one that OpenVINO reports for the
products. Variants alternate. Writes benchmarks/results/integer-forms.json.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper
from record import write

from perceiver_runtime.benchmark.statistics import Ratio, ratio
from perceiver_runtime.benchmark.timing import interleave
from perceiver_runtime.measure.compare import relative_l2

import onnxruntime as ort
import openvino

FP32 = "fp32"
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Form:
    """Types of activations and weights, and the largest integer that a weight takes, less its zero point."""

    activation: type[np.integer]
    weight: type[np.integer]
    largest: int = 127


FORMS: Mapping[str, Form | None] = {
    FP32: None,
    "u8 x s8": Form(np.uint8, np.int8),
    "u8 x s8, 7-bit": Form(np.uint8, np.int8, 63),
    "u8 x u8": Form(np.uint8, np.uint8),
    "s8 x s8": Form(np.int8, np.int8),
}


@dataclass(frozen=True)
class Row:
    """One form on one backend: median milliseconds, FP32's time there / this, relative L2 to FP32, its kernel."""

    form: str
    backend: str
    milliseconds: float
    ratio: Ratio
    error: float
    kernel: str


@dataclass(frozen=True)
class Opened:
    """A graph on a backend: its call, which returns the result, and the kernel of its products, if it can be told."""

    call: Callable[[], Floats]
    kernel: str = ""


class Chain:
    """A graph of `layers` products, (rows, width) x (width, width)."""

    def __init__(self, form: Form | None, inputs: Floats, weights: Sequence[Floats]) -> None:
        self.form = form
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        value, exact = "inputs", inputs
        for index, weight in enumerate(weights):
            name = f"product{index}"
            operands = [self._activation(value, exact, f"{name}.x"), self._weight(weight, f"{name}.w")]
            self.nodes.append(helper.make_node("MatMul", operands, [name], name))
            value, exact = name, exact @ weight
        ports = [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, inputs.shape) for n in ("inputs", value)]
        graph = helper.make_graph(self.nodes, "chain", ports[:1], ports[1:], self.constants)
        self.model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)

    def _activation(self, value: str, exact: Floats, name: str) -> str:
        if self.form is None:
            return value
        kind = np.iinfo(self.form.activation)
        scale, middle = np.float32(2 * np.abs(exact).max() / 254), (kind.min + kind.max + 1) // 2
        self._keep({f"{name}.scale": scale, f"{name}.zero": np.array(middle, self.form.activation)})
        self.nodes.append(helper.make_node("QuantizeLinear", [value, f"{name}.scale", f"{name}.zero"], [f"{name}.q"]))
        return self._dequantized(name)

    def _weight(self, weight: Floats, name: str) -> str:
        if self.form is None:
            self._keep({name: weight})
            return name
        kind, largest = np.iinfo(self.form.weight), self.form.largest
        middle = (kind.min + kind.max + 1) // 2
        scale = (np.abs(weight).max(axis=0) / largest).astype(np.float32)
        integers = (np.clip(np.round(weight / scale), -largest, largest) + middle).astype(self.form.weight)
        zero = np.full(scale.shape, middle, self.form.weight)
        self._keep({f"{name}.q": integers, f"{name}.scale": scale, f"{name}.zero": zero})
        return self._dequantized(name, axis=1)

    def _dequantized(self, name: str, **attributes: Any) -> str:
        inputs = [f"{name}.{part}" for part in ("q", "scale", "zero")]
        self.nodes.append(helper.make_node("DequantizeLinear", inputs, [f"{name}.dq"], **attributes))
        return f"{name}.dq"

    def _keep(self, arrays: Mapping[str, Any]) -> None:
        self.constants += [numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()]


def onnxruntime(model: onnx.ModelProto, inputs: Floats, threads: int, unsigned: bool) -> Opened:
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    options.add_session_config_entry("session.x64quantprecision", str(int(unsigned)))
    session = ort.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    return Opened(lambda: session.run(None, {"inputs": inputs})[0])


def openvino_cpu(model: onnx.ModelProto, inputs: Floats, threads: int) -> Opened:
    core = openvino.Core()
    options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
    read = core.read_model(model.SerializeToString())
    request = core.compile_model(read, "CPU", options).create_infer_request()
    counted = core.compile_model(read, "CPU", {**options, "PERF_COUNT": True}).create_infer_request()
    counted.infer({"inputs": inputs})
    kernels = Counter(p.exec_type for p in counted.profiling_info if p.node_type == "FullyConnected")
    return Opened(lambda: request.infer({"inputs": inputs})[0], ", ".join(kernels))


def opened(model: onnx.ModelProto, inputs: Floats, threads: int) -> Mapping[str, Opened]:
    """The graph on each backend; ONNX Runtime as it comes, and with weights made unsigned as the runtime asks it to."""
    return {
        "ONNX Runtime": onnxruntime(model, inputs, threads, unsigned=False),
        "ONNX Runtime, x64quantprecision": onnxruntime(model, inputs, threads, unsigned=True),
        "OpenVINO": openvino_cpu(model, inputs, threads),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("rounds", 30), ("threads", 2), ("rows", 256), ("width", 1280), ("layers", 4)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    random = np.random.default_rng(0)
    inputs = random.standard_normal((given.rows, given.width), dtype=np.float32)
    weights = [
        random.standard_normal((given.width, given.width), dtype=np.float32) / np.float32(np.sqrt(given.width))
        for _ in range(given.layers)
    ]
    built = {
        (form, backend): one
        for form, types in FORMS.items()
        for backend, one in opened(Chain(types, inputs, weights).model, inputs, given.threads).items()
    }
    exact = built[FP32, "ONNX Runtime"].call()
    times = interleave({key: one.call for key, one in built.items()}, given.rounds)
    rows = [
        Row(
            form,
            backend,
            float(np.median(times[form, backend])),
            ratio(times[FP32, backend], times[form, backend]),
            relative_l2(exact, one.call()),
            one.kernel,
        )
        for (form, backend), one in built.items()
    ]
    for row in rows:
        print(f"| {row.form} | {row.backend} | {row.milliseconds:.1f} | {row.ratio} | {row.error:.1e} | {row.kernel} |")
    write("integer-forms", {"rounds": given.rounds, "threads": given.threads, "rows": rows})


if __name__ == "__main__":
    main()
