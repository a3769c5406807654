"""INT8 bundles for TensorRT are verified on a CPU as the graph defines them, whatever the CPU's integer kernels do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from engines import seeded
from engines.seeded import node

from perceiver_runtime.execution.opening import open_session


def test_large_signed_products_do_not_saturate(tmp_path: Path) -> None:
    """All operands at 127: pairs of products exceed 16 bits, where kernels for signed INT8 without VNNI saturate."""
    nodes = [
        node("QuantizeLinear", "x s z", "q"),
        node("DequantizeLinear", "q s z", "d"),
        node("DequantizeLinear", "w s z", "dw"),
        node("MatMul", "d dw", "y"),
    ]
    weights = {"s": np.float32(0.01), "z": np.int8(0), "w": np.full((32, 32), 127, np.int8)}
    path = seeded.bundle(tmp_path / "bundle", nodes, weights)  # type: ignore[arg-type]
    feeds = {"x": np.full((2, 16, 32), 1.27, np.float32)}
    with open_session(path, "onnxruntime-exact") as session:
        np.testing.assert_allclose(session.run(feeds)["y"], 32 * 1.27 * 1.27, rtol=1e-6)
