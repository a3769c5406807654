"""8-bit products on processors where they are exact and where they saturate, whichever this machine has."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys

import onnx
import pytest
from onnx import TensorProto, helper

from perceiver_runtime import open_session, verify
from perceiver_runtime.backends import integer_products
from perceiver_runtime.backends.integer_products import OPTION, PRODUCT, avoid_saturation, products_saturate

from .conftest import Bundle

EMULATOR = shutil.which("qemu-x86_64-static") or shutil.which("qemu-x86_64")
EMULATED = """
import json, sys
from perceiver_runtime import open_session
from perceiver_runtime import verify
from perceiver_runtime.backends.integer_products import products_saturate
with open_session(sys.argv[1], "onnxruntime", 1) as session:
    report = verify(session)
print(json.dumps([products_saturate(), report.passed, [r.rel_l2 for r in report.reports]]))
"""
needs_emulator = pytest.mark.skipif(
    EMULATOR is None or platform.machine() != "x86_64", reason="needs x86-64 and Debian's qemu-user-static"
)


def test_the_product_is_what_it_says() -> None:
    a = helper.make_tensor_value_info("a", TensorProto.UINT8, ["m", "k"])
    b = helper.make_tensor_value_info("b", TensorProto.INT8, ["k", "n"])
    y = helper.make_tensor_value_info("y", TensorProto.INT32, ["m", "n"])
    graph = helper.make_graph([helper.make_node("MatMulInteger", ["a", "b"], ["y"])], "g", [a, b], [y])
    opset = [helper.make_opsetid("", 10)]
    assert onnx.load_from_string(PRODUCT) == helper.make_model(graph, opset_imports=opset, ir_version=5)


class Options:
    """Session options that show what was set."""

    def __init__(self) -> None:
        self.entries: dict[str, str] = {}

    def add_session_config_entry(self, key: str, value: str) -> None:
        self.entries[key] = value


@pytest.mark.parametrize(("saturate", "entries"), [(True, {OPTION: "1"}), (False, {})])
def test_weights_are_made_unsigned_only_where_products_saturate(
    saturate: bool, entries: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(integer_products, "products_saturate", lambda: saturate)
    options = Options()
    avoid_saturation(options)
    assert options.entries == entries


@pytest.mark.parametrize("saturate", [True, False])
def test_sessions_of_integers_act_on_the_finding(
    bundle: Bundle, saturate: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kernels for unsigned weights pass everywhere; those for signed weights pass where this machine has them exact."""
    asked = []

    def finding() -> bool:
        asked.append(saturate)
        return saturate

    paths = {precision: bundle(precision)[0] for precision in ("fp32", "int8")}
    monkeypatch.setattr(integer_products, "products_saturate", finding)
    open_session(paths["fp32"], "onnxruntime").close()
    assert not asked
    with open_session(paths["int8"], "onnxruntime") as session:
        assert len(asked) == len(session.manifest.components)
        assert verify(session).passed or (products_saturate() and not saturate)


@needs_emulator
@pytest.mark.parametrize(("processor", "saturates"), [("Haswell", True), ("Nehalem", False)])
def test_int8_on_another_processor(bundle: Bundle, processor: str, saturates: bool) -> None:
    """AVX2 adds pairs of products in 16 bits; SSE4 kernels don't. The same bundle passes on both."""
    path, _ = bundle("int8")
    command = [str(EMULATOR), "-cpu", processor, sys.executable, "-c", EMULATED, str(path)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    found, passed, errors = json.loads(done.stdout)
    assert found == saturates
    assert passed
    assert 0 < max(errors) < 0.1
