"""Modules as others write them, one component each, which share weights, values and outputs in unusual ways."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from perceiver_exporters.component import Blueprint, Component, Cut
from perceiver_exporters.weights import weights_sha256
from perceiver_runtime.manifest import Source
from perceiver_runtime.pipeline import Pipeline, Step
from perceiver_runtime.tensors import Array, Profile, Range, TensorSpec

Feeds = dict[str, Array]


class Twice(nn.Module):
    """One feed-forward layer over two inputs, once behind its normalisation and once without."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(32), nn.Linear(32, 64), nn.Linear(64, 32)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        first = self.down(F.gelu(self.up(self.norm(a))))
        return torch.cat([first, self.down(F.gelu(self.up(b)))], 1)


class Tied(nn.Module):
    """An embedding that is the output projection too, by function, and under another name with a bias of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.mix, self.head = nn.Embedding(40, 32), nn.Linear(32, 32), nn.Linear(32, 40)
        self.head.weight = self.table.weight

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        x = self.mix(self.table(ids))
        return F.linear(x, self.table.weight), self.head(x[:, 0])


class Axes(nn.Module):
    """One matrix read forwards and, transposed, backwards: its output channels lie along both axes."""

    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Linear(32, 32)
        self.out = nn.Linear(32, 8)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu(self.matrix(x))
        return self.out(hidden @ self.matrix.weight) + F.linear(x[:, 0], self.out.weight, self.out.bias)[:, None]


class Dense(nn.Module):
    """Ends in a convolution, whose output is read inside as well."""

    def __init__(self) -> None:
        super().__init__()
        self.mix, self.out = nn.Linear(32, 32), nn.Conv2d(32, 4, 3, padding=1)
        self.again = nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        grid = self.mix(x).transpose(1, 2).unflatten(2, (4, 4))
        made = self.out(grid)
        return made, self.again(made) + made


class ConvTwice(nn.Module):
    """A convolution applied to its own output, and the last thing that is done."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(8, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.gelu(self.conv(x)))


class Read(nn.Module):
    """An output that a product and a sum read inside; an input that is an output; one value under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(32, 32), nn.Linear(32, 32)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        made = self.first(x)
        last = made + self.second(made)
        return made, x, last, last


class Shared(nn.Module):
    """One module under two names, one bias for two products, and a product with a vector."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(32, 32)
        self.b = self.a
        self.c = nn.Linear(32, 32)
        self.c.bias = self.a.bias
        self.vector = nn.Parameter(torch.randn(32))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        flat = x[:, 0]
        return self.c(self.b(torch.tanh(self.a(flat)))), x @ self.vector


class Scaled(nn.Module):
    """Products whose factors are not 1, one with a channel of zeros and one whose inputs are all zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(32, 16), nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        flat = torch.addmm(self.a.bias, x[:, 0], self.a.weight.T, beta=2, alpha=0.5)
        keep = torch.ones(16)
        keep[3] = 0
        return self.b(flat * keep) + self.b(flat * 0)


class Attend(nn.Module):
    """Self-attention that PyTorch has one kernel for."""

    def __init__(self) -> None:
        super().__init__()
        self.attend = nn.MultiheadAttention(32, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.attend(x, x, x, need_weights=False)[0]
        return made


class Stacked(nn.Module):
    """A weight of its own for each group of rows, and a table that only a function multiplies by."""

    def __init__(self) -> None:
        super().__init__()
        self.stack, self.table = nn.Parameter(torch.randn(4, 32, 8)), nn.Embedding(16, 8)

    def forward(self, x: Tensor) -> Tensor:
        groups = x.unflatten(1, (4, 4)) @ self.stack
        return F.linear(groups.flatten(1, 2), self.table.weight)


class Limited(nn.Module):
    """Products without a bias whose only reader limits them: Relu and Clip, before a product and before a mean."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Linear(32, 32, bias=False) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.b(torch.relu(self.a(x)))
        return F.hardtanh(hidden).mean(1) + torch.relu(self.c(x[:, 0]))


class Causal(nn.Module):
    """Attention to nothing that comes later."""

    def __init__(self) -> None:
        super().__init__()
        self.take, self.give = nn.Linear(32, 96), nn.Linear(32, 32)

    def forward(self, x: Tensor) -> Tensor:
        parts = (part.unflatten(2, (4, 8)).transpose(1, 2) for part in self.take(x).chunk(3, 2))
        return self.give(F.scaled_dot_product_attention(*parts, is_causal=True).transpose(1, 2).flatten(2))


class Plain(nn.Module):
    """No product at all."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.softmax(x, -1)


@dataclass(frozen=True)
class Foreign:
    """A module, what it takes, and what it gives."""

    make: Callable[[], nn.Module]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def blueprint(self) -> Blueprint:
        """The module as a pipeline of one component, with golden and calibration feeds."""
        torch.manual_seed(0)
        module = self.make().eval().requires_grad_(False)
        name = type(module).__name__.lower()
        step = Step(name, {s.name: s.name for s in self.inputs}, {s.name: s.name for s in self.outputs}, "encode")
        profile = Profile("default", {"batch": Range(1, 2, 8)})
        cut = Cut(
            (Component(name, module, self.inputs, self.outputs),),
            Pipeline(self.inputs, self.outputs, (step,), {}),
            profile,
        )
        source = Source(name, name, weights_sha256(module), {}, pretrained=False)
        feeds = tuple(self.feeds(seed) for seed in range(4))
        return Blueprint(source, cut, feeds[:2], feeds)

    def feeds(self, seed: int) -> Feeds:
        """Random inputs for a batch of 3."""
        random = np.random.default_rng(seed)
        sizes = {"batch": 3}
        return {
            s.name: random.integers(0, 40, s.resolve(sizes))
            if s.dtype == "int64"
            else random.standard_normal(s.resolve(sizes), dtype=np.float32)
            for s in self.inputs
        }


def _f(name: str, *shape: int) -> TensorSpec:
    return TensorSpec(name, "float32", ("batch", *shape))


X = (_f("x", 16, 32),)
FOREIGN = {
    "twice": Foreign(Twice, (_f("a", 5, 32), _f("b", 7, 32)), (_f("made", 12, 32),)),
    "tied": Foreign(Tied, (TensorSpec("ids", "int64", ("batch", 6)),), (_f("scores", 6, 40), _f("first", 40))),
    "axes": Foreign(Axes, X, (_f("made", 16, 8),)),
    "dense": Foreign(Dense, X, (_f("map", 4, 4, 4), _f("again", 4, 4, 4))),
    "conv-twice": Foreign(ConvTwice, (_f("x", 8, 20),), (_f("made", 8, 20),)),
    "read": Foreign(Read, X, (_f("made", 16, 32), _f("same", 16, 32), _f("last", 16, 32), _f("twin", 16, 32))),
    "shared": Foreign(Shared, X, (_f("made", 32), _f("dot", 16))),
    "scaled": Foreign(Scaled, X, (_f("made", 16),)),
    "attend": Foreign(Attend, X, (_f("made", 16, 32),)),
    "stacked": Foreign(Stacked, X, (_f("made", 16, 16),)),
    "limited": Foreign(Limited, X, (_f("made", 32),)),
    "causal": Foreign(Causal, X, (_f("made", 16, 32),)),
    "plain": Foreign(Plain, X, (_f("made", 16, 32),)),
}
