"""Small modules as users write them: no family, no shared code with the product."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import torch
from torch import Tensor, nn


class Attend(nn.Module):
    """Pre-norm attention with a residual, and a feed-forward layer with another."""

    def __init__(self, dim: int, inputs: int, heads: int = 2) -> None:
        super().__init__()
        self.norm, self.norm_inputs, self.norm_mlp = nn.LayerNorm(dim), nn.LayerNorm(inputs), nn.LayerNorm(dim)
        self.query, self.key_value = nn.Linear(dim, dim), nn.Linear(inputs, 2 * dim)
        self.output = nn.Linear(dim, dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))
        self.heads = heads

    def forward(self, x: Tensor, inputs: Tensor | None = None) -> Tensor:
        read = self.norm(x) if inputs is None else self.norm_inputs(inputs)
        keys, values = self.key_value(read).chunk(2, dim=-1)
        query, key, value = (self._split(each) for each in (self.query(self.norm(x)), keys, values))
        attended = nn.functional.scaled_dot_product_attention(query, key, value)
        x = x + self.output(attended.transpose(1, 2).flatten(2))
        out: Tensor = x + self.mlp(self.norm_mlp(x))
        return out

    def _split(self, x: Tensor) -> Tensor:
        return x.view(x.shape[0], x.shape[1], self.heads, -1).transpose(1, 2)


class Tied(nn.Module):
    """Reads once, repeats two layers with the same weights, answers queries of the caller."""

    def __init__(self, repeats: int = 3) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.randn(5, 16))
        self.read, self.ask = Attend(16, 6), Attend(16, 16)
        self.layers = nn.ModuleList(Attend(16, 16) for _ in range(2))
        self.head = nn.Linear(16, 3)
        self.repeats = repeats

    def forward(self, x: Tensor, queries: Tensor) -> dict[str, Tensor]:
        latents = self.read(self.latents.expand(x.shape[0], -1, -1), x)
        for _ in range(self.repeats):
            for layer in self.layers:
                latents = layer(latents)
        return {"scores": self.head(self.ask(queries, latents)), "latents": latents}


class Alternating(nn.Module):
    """Reads the inputs before every layer, with the same weights from the second time on."""

    def __init__(self) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.randn(5, 16))
        self.embed = nn.Linear(6, 16)
        self.first, self.tied = nn.ModuleList([Attend(16, 16), Attend(16, 16)]), None
        self.later = nn.ModuleList([Attend(16, 16), Attend(16, 16)])
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.embed(x)
        latents = self.latents.expand(x.shape[0], -1, -1)
        for read, think in (self.first, self.later, self.later, self.later):
            latents = think(read(latents, tokens))
        out: Tensor = self.head(latents.mean(1))
        return out


class Unlike(nn.Module):
    """Reads once; layers with weights of their own; a head on the mean."""

    def __init__(self) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.randn(5, 16))
        self.read = Attend(16, 6)
        self.layers = nn.Sequential(*(Attend(16, 16) for _ in range(3)))
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor, *, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
        latents = self.layers(self.read(self.latents.expand(x.shape[0], -1, -1), x))
        return self.head(latents.mean(1)) / temperature, latents


class Resampler(nn.Module):
    """Every layer reads the inputs beside the latents."""

    def __init__(self) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.randn(5, 16))
        self.layers = nn.ModuleList(Attend(16, 16) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        latents = self.latents.expand(x.shape[0], -1, -1)
        for layer in self.layers:
            latents = layer(latents, torch.cat([x, latents], dim=1))
        return latents


@dataclass
class Answer:
    """What `Structured` returns."""

    logits: Tensor
    parts: tuple[Tensor, Tensor]
    note: str = ""


class Structured(nn.Module):
    """Nested inputs, an optional one, a constant; a dataclass as the result, with an input's name in it."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(4, 4)

    def forward(self, streams: dict[str, Tensor], scale: float, mask: Tensor | None = None) -> Answer:
        mixed = self.mix(streams["left"]) * scale + streams["right"].float()
        if mask is not None:
            mixed = mixed * mask[..., None]
        return Answer(mixed, (mixed.sum(-1), torch.zeros(1, dtype=torch.float32) + mixed[:, 0]), "unused")


class FixedByLen(nn.Module):
    """Takes the batch for a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.randn(5, 4))

    def forward(self, x: Tensor) -> Tensor:
        rows = len(x)
        return self.latents.expand(rows, -1, -1) + x


class Speaking(nn.Module):
    """Prints while it is traced."""

    def forward(self, x: Tensor) -> Tensor:
        print("half", file=sys.stderr)
        return x / 2


class Branching(nn.Module):
    """Depends on a value, which can't be traced."""

    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            return x * 2
        return x


class Selecting(nn.Module):
    """Makes a tensor whose size depends on values."""

    def forward(self, x: Tensor) -> Tensor:
        return x[x > 0].sum() + x


class Regions(Resampler):
    """Runs parts without gradients, and without autocast."""

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            first = super().forward(x)
        with torch.enable_grad():
            out: Tensor = first * 2
        return out.detach()


class Lower(Resampler):
    """Chooses a precision by itself."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return super().forward(x)


class Positional(nn.Module):
    """Takes its inputs by position alone."""

    def forward(self, *streams: Tensor) -> Tensor:
        return torch.cat(streams, 1)
