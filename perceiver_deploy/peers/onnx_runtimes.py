"""What `torch.onnx.export` makes of the whole module, on ONNX Runtime and on OpenVINO."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from perceiver_deploy.peers.workload import Feeds, Workload
from perceiver_exporters.ir.quiet import quiet
from perceiver_runtime.errors import UnavailableError
from perceiver_runtime.format.staging import staged

OPSET = 20
PROVIDERS: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "cpu": ("CPUExecutionProvider", {}),
    "cuda": ("CUDAExecutionProvider", {"use_tf32": "0"}),  # FP32, as PyTorch on the GPU
}


def plain_export(workload: Workload) -> Path:
    """The module in FP32 at these sizes, as `DIRECTORY/plain/model.onnx`. Raises UnavailableError where that fails."""
    module, arguments, named = workload.call()

    def make(target: Path) -> None:
        try:
            with quiet(), torch.no_grad():
                program = torch.onnx.export(
                    module,
                    arguments,
                    kwargs=dict(named),
                    input_names=list(workload.feeds),
                    opset_version=OPSET,
                    dynamo=True,
                    verbose=False,
                )
                assert program is not None  # as with dynamo=True
                program.save(target, external_data=True)
        except Exception as error:
            raise _unavailable("torch.onnx.export", error) from error

    path = workload.directory / "plain" / "model.onnx"
    if not path.exists():
        with staged(path.parent) as partial:
            make(partial / path.name)
    return path


def onnxruntime_call(workload: Workload) -> Callable[[], object]:
    """ONNX Runtime on the plain export. Raises UnavailableError where it is not installed, or can't run the graph."""
    return run_onnxruntime(plain_export(workload), workload.feeds, workload.threads, workload.device)


def openvino_call(workload: Workload) -> Callable[[], object]:
    """OpenVINO on the plain export, in FP32. Raises UnavailableError where it is not installed, and on a GPU."""
    if workload.device != "cpu":
        raise UnavailableError("peer openvino: it runs on the processor, and the bundles on the GPU; leave it out")
    return run_openvino(plain_export(workload), workload.feeds, workload.threads, "f32")


def run_onnxruntime(path: Path, feeds: Feeds, threads: int, device: str = "cpu") -> Callable[[], object]:
    """An ONNX Runtime session at its defaults; with CUDA, in FP32 proper."""
    ort = _imported("onnxruntime")
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    try:
        session = ort.InferenceSession(str(path), options, providers=[PROVIDERS[device]])
        if session.get_providers()[0] != PROVIDERS[device][0]:  # ONNX Runtime would go on with the processor
            raise RuntimeError(f"expected {PROVIDERS[device][0]}, got {session.get_providers()[0]}")
        given = _given(feeds, (node.name for node in session.get_inputs()))
        session.run(None, given)
    except Exception as error:
        raise _unavailable("ONNX Runtime", error) from error
    return lambda: session.run(None, given)


def run_openvino(path: Path, feeds: Feeds, threads: int, arithmetic: str | None = None) -> Callable[[], object]:
    """OpenVINO; `arithmetic` of what is not INT8 is its own choice unless given: bfloat16 where the processor has it.

    Raises UnavailableError for an arithmetic that the processor lacks.
    """
    from perceiver_runtime.backends.openvino import shared_core

    options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads}
    hint = {"INFERENCE_PRECISION_HINT": arithmetic} if arithmetic else {}
    core = shared_core()
    if arithmetic == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise UnavailableError("plain OpenVINO, bf16: this processor has no bfloat16 arithmetic; left out")
    try:
        compiled = core.compile_model(path, "CPU", options | hint)
        request = compiled.create_infer_request()
        given = _given(feeds, (name for port in compiled.inputs for name in port.names))
        request.infer(given)
    except Exception as error:
        raise _unavailable("OpenVINO", error) from error
    return lambda: request.infer(given)


def _given(feeds: Feeds, names: Iterable[str]) -> Mapping[str, Any]:
    """The inputs that a graph kept."""
    known = set(names)
    return {name: array for name, array in feeds.items() if name in known}


def _imported(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UnavailableError(f"expected {name}, got {error}; pip install {name}") from error


def _unavailable(what: str, error: Exception) -> UnavailableError:
    return UnavailableError(
        f"{what} can't run this module: {type(error).__name__}: {str(error).strip().splitlines()[0]:.300}"
    )
