"""Attention as people write it: one module per form, each with the same interface, of any sizes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from perceiver_exporters.component import Component
from perceiver_runtime.tensors import Profile, Range, TensorSpec


@dataclass(frozen=True)
class Sizes:
    """Sizes of an attention: latents of `width` channels read tokens of `channels`."""

    latents: int = 5
    tokens: int = 11
    heads: int = 4
    head: int = 8
    groups: int = 2
    channels: int = 24
    width: int = 40

    @property
    def inner(self) -> int:
        """Channels of all heads."""
        return self.heads * self.head


class Written(nn.Module):
    """Learned latents read tokens; `attend` is the form."""

    def __init__(self, s: Sizes) -> None:
        super().__init__()
        self.s = s
        self.latents = nn.Parameter(torch.randn(s.latents, s.width))
        self.norm, self.norm_latents = nn.LayerNorm(s.channels), nn.LayerNorm(s.width)
        self.q = nn.Linear(s.width, s.inner)
        self.kv = nn.Linear(s.channels, 2 * s.inner, bias=False)
        self.o = nn.Linear(s.inner, s.width)

    def forward(self, x: Tensor, keep: Tensor) -> Tensor:
        latents = self.latents[None].expand(x.shape[0], -1, -1)
        return latents + self.attend(self.norm_latents(latents), self.norm(x), keep)

    def attend(self, latents: Tensor, x: Tensor, keep: Tensor) -> Tensor:
        q, (k, v) = self.q(latents), self.kv(x).chunk(2, -1)
        return self.o(self.merge(self.scores(*map(self.split, (q, k, v)), keep)))  # type: ignore[call-arg]

    def split(self, x: Tensor) -> Tensor:
        return x.unflatten(2, (self.s.heads, self.s.head)).transpose(1, 2)

    def merge(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2).flatten(2)

    def scores(self, q: Tensor, k: Tensor, v: Tensor, keep: Tensor) -> Tensor:
        return torch.softmax(q @ k.transpose(-1, -2) * self.s.head**-0.5, -1) @ v


class BatchOfHeads(Written):
    """(B * heads, N, E), with einsum; scores scaled, masked keys filled."""

    def split(self, x: Tensor) -> Tensor:
        return super().split(x).flatten(0, 1)

    def merge(self, x: Tensor) -> Tensor:
        return super().merge(x.unflatten(0, (-1, self.s.heads)))

    def scores(self, q: Tensor, k: Tensor, v: Tensor, keep: Tensor) -> Tensor:
        scores = torch.einsum("b i d, b j d -> b i j", q, k) * self.s.head**-0.5
        mask = keep[:, None].expand(-1, self.s.heads, -1).flatten(0, 1)[:, None]
        scores = scores.masked_fill(~mask, -torch.finfo(scores.dtype).max)
        return torch.einsum("b i j, b j d -> b i d", scores.softmax(-1), v)


class Stable(Written):
    """Queries scaled, the maximum subtracted; heads merged by the einsum that projects them."""

    def scores(self, q: Tensor, k: Tensor, v: Tensor, keep: Tensor) -> Tensor:
        scores = torch.einsum("... i d, ... j d -> ... i j", q * self.s.head**-0.5, k)
        scores = scores - scores.amax(-1, keepdim=True).detach()
        return torch.einsum("... i j, ... j d -> ... i d", scores.softmax(-1), v)

    def attend(self, latents: Tensor, x: Tensor, keep: Tensor) -> Tensor:
        q, (k, v) = self.q(latents), self.kv(x).chunk(2, -1)
        made = self.scores(*map(self.split, (q, k, v)), keep)  # type: ignore[call-arg]
        weight = self.o.weight.unflatten(1, (self.s.heads, self.s.head))
        return torch.einsum("b h i d, o h d -> b i o", made, weight) + self.o.bias


class BothScaled(Written):
    """Queries and keys scaled by the root, divided once more; a mask that is added; the keys' channels interleaved."""

    def split(self, x: Tensor) -> Tensor:
        return x.unflatten(2, (self.s.head, self.s.heads)).permute(0, 3, 1, 2)

    def merge(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1).flatten(2)

    def scores(self, q: Tensor, k: Tensor, v: Tensor, keep: Tensor) -> Tensor:
        root = self.s.head**-0.25
        scores = (q * root) @ (k * root).transpose(-1, -2) / 1.5
        return torch.softmax(scores + torch.where(keep, 0.0, -1e9)[:, None, None], -1) @ v


class Grouped(Written):
    """Heads that share keys and values, which are repeated."""

    def __init__(self, s: Sizes) -> None:
        super().__init__(s)
        self.kv = nn.Linear(s.channels, 2 * s.groups * s.head)

    def keys(self, x: Tensor) -> tuple[Tensor, Tensor]:
        k, v = (part.unflatten(2, (self.s.groups, self.s.head)).transpose(1, 2) for part in self.kv(x).chunk(2, -1))
        return k, v

    def attend(self, latents: Tensor, x: Tensor, keep: Tensor) -> Tensor:
        each = self.s.heads // self.s.groups
        k, v = (part[:, :, None].expand(-1, -1, each, -1, -1).flatten(1, 2) for part in self.keys(x))
        made = F.scaled_dot_product_attention(self.split(self.q(latents)), k, v, attn_mask=keep[:, None, None])
        return self.o(self.merge(made))


class GroupedByFunction(Grouped):
    """The same by the function's own option, without a mask."""

    def attend(self, latents: Tensor, x: Tensor, keep: Tensor) -> Tensor:
        made = F.scaled_dot_product_attention(self.split(self.q(latents)), *self.keys(x), enable_gqa=True)
        return self.o(self.merge(made))


class GroupedAndMasked(Grouped):
    """The same with a mask of every query."""

    def attend(self, latents: Tensor, x: Tensor, keep: Tensor) -> Tensor:
        mask = keep[:, None, None].expand(-1, 1, self.s.latents, -1)
        made = F.scaled_dot_product_attention(self.split(self.q(latents)), *self.keys(x), mask, enable_gqa=True)
        return self.o(self.merge(made))


class SeveralFrames(Written):
    """(B, frames, N, E) with frames before heads, as Flamingo has it; two frames of the same tokens."""

    def attend(self, latents: Tensor, x: Tensor, keep: Tensor) -> Tensor:
        frames = torch.stack([x, x.flip(1)], 1)
        k, v = self.kv(frames).chunk(2, -1)
        q = self.q(latents[:, None].expand(-1, 2, -1, -1))
        q, k, v = (t.unflatten(3, (self.s.heads, self.s.head)).permute(0, 3, 1, 2, 4) for t in (q, k, v))
        made = self.scores(q, k, v, keep).permute(0, 2, 3, 1, 4).flatten(3)
        return self.o(made).mean(1)


class Packed(Written):
    """Queries, keys and values in one layer, of the tokens; the first rows are the answers."""

    def __init__(self, s: Sizes) -> None:
        super().__init__(s)
        self.qkv = nn.Linear(s.channels, 3 * s.inner)

    def attend(self, latents: Tensor, x: Tensor, keep: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(2, (3, self.s.heads, self.s.head)).permute(2, 0, 3, 1, 4).unbind(0)
        return self.o(self.merge(F.scaled_dot_product_attention(q, k, v)))[:, :1]


class Multihead(Written):
    """nn.MultiheadAttention over keys and values of other widths, with a mask of padding."""

    def __init__(self, s: Sizes) -> None:
        super().__init__(s)
        self.inside = nn.Linear(s.width, s.inner)
        self.mha = nn.MultiheadAttention(s.inner, s.heads, kdim=s.channels, vdim=s.channels, batch_first=True)

    def attend(self, latents: Tensor, x: Tensor, keep: Tensor) -> Tensor:
        return self.o(self.mha(self.inside(latents), x, x, key_padding_mask=~keep, need_weights=False)[0])


class MultiheadPacked(Multihead):
    """nn.MultiheadAttention with one packed weight, the batch second, no mask."""

    def __init__(self, s: Sizes) -> None:
        super().__init__(s)
        self.first, self.mha = nn.Linear(s.channels, s.inner), nn.MultiheadAttention(s.inner, s.heads)

    def attend(self, latents: Tensor, x: Tensor, keep: Tensor) -> Tensor:
        q, k = self.inside(latents).transpose(0, 1), self.first(x).transpose(0, 1)
        return self.o(self.mha(q, k, k)[0].transpose(0, 1))


FORMS: dict[str, Callable[[Sizes], Written]] = {
    "scores scaled": Written,
    "batch of heads": BatchOfHeads,
    "stable": Stable,
    "both scaled": BothScaled,
    "grouped": Grouped,
    "grouped by function": GroupedByFunction,
    "grouped and masked": GroupedAndMasked,
    "several frames": SeveralFrames,
    "packed": Packed,
    "multihead": Multihead,
    "multihead packed": MultiheadPacked,
}


def component(form: str, sizes: Sizes, *, dynamic: bool = True) -> tuple[Component, Profile]:
    """A module of this form with random weights, biases among them, as a component; batch, and tokens if dynamic."""
    torch.manual_seed(0)
    module = FORMS[form](sizes).eval().requires_grad_(False)
    for parameter in module.parameters():
        if parameter.ndim == 1:
            parameter.add_(torch.randn_like(parameter) / 4)
    tokens = "tokens" if dynamic else sizes.tokens
    inputs = (
        TensorSpec("x", "float32", ("batch", tokens, sizes.channels)),
        TensorSpec("keep", "bool", ("batch", tokens)),
    )
    outputs = (TensorSpec("made", "float32", ("batch", sizes.latents, sizes.width)),)
    ranges = {"batch": Range(1, 2, 8)} | ({"tokens": Range(2, sizes.tokens, 64)} if dynamic else {})
    return Component("attention", module, inputs, outputs), Profile("default", ranges)
