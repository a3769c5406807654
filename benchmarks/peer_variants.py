"""Peers in INT8: what each runtime's own tool makes of the whole model through PyTorch's exporter.

Each graph is made once, in its own directory, and kept. INT8 uses each runtime's tool at its defaults for the CPU,
calibrated with the inputs that are timed: speed only. OpenVINO's tool is NNCF, which only
the benchmarks need: `pip install --no-deps nncf==3.4.0 ninja psutil pydot tabulate`.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import onnx

from perceiver_exporters.ir.quiet import quiet
from perceiver_runtime.errors import UnavailableError
from perceiver_runtime.tensors import Array

from onnxruntime import quantization
from onnxruntime.quantization.shape_inference import quant_pre_process

Feeds = Mapping[str, Array]
PRODUCTS = ("MatMul", "Gemm", "Conv")


def static_openvino(plain: Path, inputs: Feeds) -> Path:
    """Post-training quantisation by NNCF, with its scheme for transformers. Raises UnavailableError without it."""

    def make(target: Path) -> None:
        try:
            import nncf
        except ImportError as error:
            raise UnavailableError(f"OpenVINO's INT8 needs its quantiser: {error}; see {__file__}") from error
        import openvino
        from openvino.passes import ConstantFolding, Manager

        model = openvino.Core().read_model(plain)
        passes = Manager()
        passes.register_pass(ConstantFolding())  # or most products of weights that blocks share stay in FP32
        passes.run_passes(model)
        given = {port.any_name: inputs[port.any_name] for port in model.inputs}
        quantized = nncf.quantize(
            model,
            nncf.Dataset([given]),
            model_type=nncf.ModelType.TRANSFORMER,
            target_device=nncf.TargetDevice.CPU,
            subset_size=1,
            fast_bias_correction=True,
        )
        openvino.save_model(quantized, target, compress_to_fp16=False)

    return _once(_beside(plain, "int8-openvino") / "model.xml", make)


def static_onnxruntime(plain: Path, inputs: Feeds) -> Path:
    """ONNX Runtime's static quantiser: unsigned activations, signed weights per channel."""

    def make(target: Path) -> None:
        source = _prepared(plain)
        quantization.quantize_static(
            source,
            target,
            _Samples(source, inputs),
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            op_types_to_quantize=list(PRODUCTS),
            nodes_to_quantize=_weighted(source),  # or it takes products of two activations as well
            use_external_data_format=True,
        )

    return _once(_beside(plain, "int8-onnxruntime") / "model.onnx", make)


def dynamic_onnxruntime(plain: Path) -> Path:
    """ONNX Runtime's dynamic quantiser: ranges of activations taken at run time."""

    def make(target: Path) -> None:
        source = _prepared(plain)
        quantization.quantize_dynamic(
            source,
            target,
            per_channel=True,
            weight_type=quantization.QuantType.QInt8,
            op_types_to_quantize=["MatMul", "Gemm"],  # of two activations it takes none of its own accord
            use_external_data_format=True,
        )

    return _once(_beside(plain, "int8-dynamic") / "model.onnx", make)


class _Samples(quantization.CalibrationDataReader):
    """One sample, of those inputs that the graph kept."""

    def __init__(self, path: Path, inputs: Feeds) -> None:
        names = {value.name for value in onnx.load(path, load_external_data=False).graph.input}
        self._left = [{name: array for name, array in inputs.items() if name in names}]

    def get_next(self) -> dict[str, Array] | None:
        """The sample, then None."""
        return self._left.pop() if self._left else None


def _prepared(plain: Path) -> Path:
    """What ONNX Runtime asks for before quantising: constants folded, so that weights are seen as such."""

    def make(target: Path) -> None:
        with quiet():
            quant_pre_process(plain, target, skip_symbolic_shape=True, save_as_external_data=True)

    return _once(_beside(plain, "prepared") / "model.onnx", make)


def _weighted(path: Path) -> list[str]:
    graph = onnx.load(path, load_external_data=False).graph
    constants = {tensor.name for tensor in graph.initializer}
    return [node.name for node in graph.node if node.op_type in PRODUCTS and node.input[1] in constants]


def _beside(plain: Path, kind: str) -> Path:
    return plain.parent.with_name(f"{plain.parent.name}-{kind}")


def _once(path: Path, make: Callable[[Path], None]) -> Path:
    """Make the directory of `path` unless it is there; one that was cut short is made again."""
    if not path.parent.exists():
        part = path.parent.with_name(f"{path.parent.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        make(part / path.name)
        part.rename(path.parent)
    return path
