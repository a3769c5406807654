"""FLOPs counted on graphs before rewriting, against PyTorch's FlopCounterMode on the same modules.

FlopCounterMode counts matrix products, convolutions and attention. Recurrent layers run on the meta device as the
products that they consist of, so that they count too.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir
import pytest
import torch
from engines.rtx import small
from factories.families import SMALL
from onnx import TensorProto, helper
from torch import Tensor, nn
from torch.nn import functional as F

from perceiver_exporters.component import Component
from perceiver_exporters.ir.flops import flops, recurrent_flops
from perceiver_exporters.ir.sized import SizedGraph
from perceiver_exporters.ir.trace import trace
from perceiver_exporters.memory.liveness import counted_flops
from perceiver_runtime.tensors import Profile, Range, TensorSpec

AGREES = 0.01
FOLDED: Mapping[tuple[str, str], int] = {("image-classifier-learned", "encoder"): 2 * (16 * 20) * 16 * 16}
"""Products of constants, which tracing computes: the projection of 16 x 20 learned positions of width 16."""


@pytest.mark.parametrize("family", [pytest.param(f, marks=pytest.mark.xdist_group(f"rtx-{f}")) for f in SMALL])
def test_every_family_counts_as_pytorch_does(family: str) -> None:
    subject = small(family)
    cut = subject.made.cut
    for component in cut.components:
        graph = SizedGraph(subject.traces(component, cut.profile, 20), component.inputs, cut.profile)
        expected = counted_flops(component, cut.profile) - FOLDED.get((family, component.name), 0)
        assert flops(graph) == pytest.approx(expected, rel=AGREES), component.name


class Mixed(nn.Module):
    """Products of all kinds: grouped and transposed convolutions, einsum, attention, a recurrent layer."""

    def __init__(self) -> None:
        super().__init__()
        self.grouped = nn.Conv2d(8, 12, 3, stride=2, padding=1, groups=4)
        self.up = nn.ConvTranspose2d(12, 6, 4, stride=2, padding=1, groups=2)
        self.along = nn.Conv1d(6, 6, 3, dilation=2, padding=2)
        self.gru = nn.GRU(6, 10, bidirectional=True, batch_first=True)
        self.lstm = nn.LSTM(20, 8, batch_first=True)
        self.mix = nn.Parameter(torch.randn(2, 4, 5))

    def forward(self, x: Tensor) -> Tensor:
        image = self.up(self.grouped(x))
        rows = self.along(image.flatten(2)).transpose(1, 2)
        states = self.lstm(self.gru(rows)[0])[0].unflatten(2, (2, 4))
        attended = F.scaled_dot_product_attention(*(states.transpose(1, 2),) * 3)
        return torch.einsum("bhnd,hde->bnhe", attended, self.mix)


def test_a_module_of_ones_own_counts_as_pytorch_does() -> None:
    batch = Range(1, 2, 4)
    specs = TensorSpec("x", "float32", ("batch", 8, 6, 6)), TensorSpec("y", "float32", ("batch", 36, 2, 5))
    component = Component("mixed", Mixed().eval(), specs[:1], specs[1:])
    profile = Profile("default", {"batch": batch})
    model = trace(component, profile)
    assert {"Conv", "ConvTranspose", "GRU", "LSTM", "MatMul"} <= {node.op_type for node in model.graph}
    expected = counted_flops(component, profile)
    graph = SizedGraph(model, component.inputs, profile)
    assert flops(graph) == pytest.approx(expected, rel=AGREES)
    both_directions, one = 2 * 3 * 10 * (6 + 10), 4 * 8 * (20 + 8)
    assert recurrent_flops(graph) == 2 * (2 * 36) * (both_directions + one)  # 2 rows of 36 positions


@pytest.mark.parametrize(
    ("equation", "shapes", "products"),
    [
        ("bik,bkj->bij", [(2, 3, 4), (2, 4, 5)], 2 * 3 * 4 * 5),
        ("...ik,kj->...ij", [(2, 6, 3, 4), (4, 5)], 2 * 6 * 3 * 4 * 5),
        ("ij->ji", [(3, 4)], 0),
    ],
)
def test_einsum_that_no_translation_replaced(equation: str, shapes: list[tuple[int, ...]], products: int) -> None:
    names = [f"x{i}" for i in range(len(shapes))]
    node = helper.make_node("Einsum", names, ["y"], equation=equation)
    infos = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in zip(names, shapes, strict=True)]
    made = helper.make_graph([node], "g", infos, [helper.make_empty_tensor_value_info("y")])
    model = ir.from_proto(helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)]))
    specs = tuple(TensorSpec(n, "float32", s) for n, s in zip(names, shapes, strict=True))
    assert flops(SizedGraph(model, specs, Profile("default", {}))) == 2 * products
