"""Processing costs nothing until it is used, and needs NumPy alone when it is."""

from __future__ import annotations

import subprocess
import sys

import pytest

MODULES = ("text", "fill_mask", "image", "flow", "flow_error", "colour_wheel", "multimodal", "labels")


def loaded_after(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(result.stdout.split())


def test_the_runtime_does_not_load_it() -> None:
    assert not {name for name in loaded_after("import perceiver_runtime") if ".processing" in name}


@pytest.mark.parametrize("module", MODULES)
def test_it_needs_numpy_alone(module: str) -> None:
    loaded = loaded_after(f"import perceiver_runtime.processing.{module}")
    assert not loaded & {"torch", "onnx", "onnxruntime", "PIL", "scipy", "skimage", "transformers", "safetensors"}
