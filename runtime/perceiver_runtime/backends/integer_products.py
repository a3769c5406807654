"""Whether the integer kernels of this machine are exact, determined by computing a product.

Without dot-product instructions (VNNI, AMX, those of Arm), x86-64 kernels add pairs of unsigned x signed products in 16
bits, which saturate: 2 x 255 x 127 > 32,767. ONNX Runtime can make the signed weights unsigned, for kernels that do not
saturate (`session.x64quantprecision`), but then does so on processors with VNNI too, which have no unsigned x unsigned
instruction and take twice the time. The option is therefore set only if a product of the largest operands is wrong.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

import onnxruntime as ort

OPTION = "session.x64quantprecision"
PRODUCT = (
    b'\x08\x05:b\n\x18\n\x01a\n\x01b\x12\x01y"\rMatMulInteger\x12\x01gZ\x15\n\x01a\x12\x10\n\x0e\x08\x02\x12\n\n\x03\x12'
    b"\x01m\n\x03\x12\x01kZ\x15\n\x01b\x12\x10\n\x0e\x08\x03\x12\n\n\x03\x12\x01k\n\x03\x12\x01nb\x15\n\x01y\x12\x10\n"
    b"\x0e\x08\x06\x12\n\n\x03\x12\x01m\n\x03\x12\x01nB\x04\n\x00\x10\n"
)
"""The ONNX model y = MatMulInteger(a: uint8 (m, k), b: int8 (k, n)), as bytes: the runtime does not depend on onnx."""


def avoid_saturation(options: Any) -> None:
    """Set the `onnxruntime.SessionOptions` under which quantised products are exact on this machine."""
    if products_saturate():
        options.add_session_config_entry(OPTION, "1")


@lru_cache(1)
def products_saturate() -> bool:
    """Whether ONNX Runtime's product of the largest uint8 and int8 operands is wrong here. Computed once, in 3 ms."""
    session = ort.InferenceSession(PRODUCT, providers=["CPUExecutionProvider"])
    a, b = np.full((4, 64), 255, np.uint8), np.full((64, 16), 127, np.int8)
    (got,) = session.run(None, {"a": a, "b": b})
    return not np.array_equal(got, a.astype(np.int32) @ b.astype(np.int32))
