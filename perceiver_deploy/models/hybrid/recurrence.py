"""One recurrent layer in one direction, with its parameters in ONNX's layout.

`nn.LSTM` can be traced, but with the sequence length of the example baked in, and `nn.RNN` unrolls. This layer
computes with PyTorch's kernels and traces to one ONNX `LSTM`, `GRU` or `RNN` node of any length, whose weights are
the layer's own tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from perceiver_deploy.models.hybrid.config import Cell

State = tuple[Tensor, ...]


@dataclass(frozen=True)
class CellKind:
    """How one kind of cell is spelt: `order` takes ONNX's gates to PyTorch's, `states` counts h (and c)."""

    op: str
    order: tuple[int, ...]
    states: int
    compute: Callable[..., Any]
    attributes: Mapping[str, int] = field(default_factory=dict)


CELLS: Mapping[Cell, CellKind] = {
    "lstm": CellKind("LSTM", (0, 2, 3, 1), 2, torch.lstm),
    "gru": CellKind("GRU", (1, 0, 2), 1, torch.gru, {"linear_before_reset": 1}),
    "rnn": CellKind("RNN", (0,), 1, torch.rnn_tanh),
}


class Recurrence(nn.Module):
    """Features (B, L, dim) to (B, L, hidden) from an initial state, and the state after the last position.

    W (1, G * hidden, dim), R (1, G * hidden, hidden) and B (1, 2 * G * hidden) hold G gates in the order of the
    ONNX operator (LSTM: input, output, forget, cell; GRU: update, reset, hidden).
    """

    def __init__(self, cell: Cell, dim: int, hidden: int) -> None:
        super().__init__()
        self.kind, self.hidden = CELLS[cell], hidden
        rows = len(self.kind.order) * hidden
        bound = hidden**-0.5
        self.W = nn.Parameter(torch.empty(1, rows, dim).uniform_(-bound, bound))
        self.R = nn.Parameter(torch.empty(1, rows, hidden).uniform_(-bound, bound))
        self.B = nn.Parameter(torch.empty(1, 2 * rows).uniform_(-bound, bound))

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Run over x (B, L, dim); every state tensor is (B, hidden), zeros when none is given."""
        if state is None:
            state = (x.new_zeros(x.shape[0], self.hidden),) * self.kind.states
        initial = tuple(s.unsqueeze(0) for s in state)
        outputs, final = self._traced(x, initial) if torch.onnx.is_in_onnx_export() else self._computed(x, initial)
        return outputs, tuple(s.squeeze(0) for s in final)

    def _computed(self, x: Tensor, initial: State) -> tuple[Tensor, State]:
        biases = self.B[0].chunk(2)
        weights = [self._torch_order(p) for p in (self.W[0], self.R[0], *biases)]
        start = initial if self.kind.states > 1 else initial[0]
        outputs, *final = self.kind.compute(x, start, weights, True, 1, 0.0, self.training, False, True)
        return outputs, tuple(final)

    def _torch_order(self, gates: Tensor) -> Tensor:
        split = gates.chunk(len(self.kind.order))
        return torch.cat([split[i] for i in self.kind.order])

    def _traced(self, x: Tensor, initial: State) -> tuple[Tensor, State]:
        B, L = x.shape[0], x.shape[1]
        outputs, *final = torch.onnx.ops.symbolic_multi_out(
            self.kind.op,
            (x.transpose(0, 1), self.W, self.R, self.B, None, *initial),
            {"hidden_size": self.hidden, **self.kind.attributes},
            dtypes=(x.dtype,) * (1 + self.kind.states),
            shapes=((L, 1, B, self.hidden), *((1, B, self.hidden) for _ in initial)),
            version=14,
        )
        return outputs.squeeze(1).transpose(0, 1), tuple(final)
