"""Reading inputs that are too many to be attended at once: `begin`, `fold` for every chunk, `finish`.

Inputs are chunked along a slice axis of the raw inputs (rows of a frame, frames of a video), and each fold makes the
tokens of its own slices, so that neither the scores nor the tokens ever exist whole. `begin` gives the slices' index,
which says where the tokens of a chunk lie.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from perceiver_deploy.families.parts import Part, Specs, latents_spec, part
from perceiver_deploy.models import chunked
from perceiver_deploy.models.config import PerceiverConfig
from perceiver_deploy.models.perceiver import Perceiver
from perceiver_runtime.tensors import TensorSpec

NEXT = {"m_next": "m", "total_next": "total", "acc_next": "acc"}
"""Outputs of a fold, and the state that they feed in the next one."""


def state(config: PerceiverConfig) -> Specs:
    """The scaled queries q, and the running maximum m, sum total and weighted values acc (see `models.chunked`)."""
    heads, latents = config.encoder.heads, config.latents
    widths = {"q": config.encoder.qk_dim // heads, "m": 1, "total": 1, "acc": config.encoder.v_dim // heads}
    return tuple(TensorSpec(name, "float32", ("batch", heads, latents, width)) for name, width in widths.items())


def folded(config: PerceiverConfig) -> Specs:
    """What a fold gives: the next state."""
    following = {after: before for before, after in NEXT.items()}
    return tuple(TensorSpec(following[s.name], s.dtype, s.shape) for s in state(config) if s.name != "q")


class Begin(nn.Module):
    """Any piece of the inputs, of which only the batch matters, to the empty state and the index (slices,) of all."""

    def __init__(self, perceiver: Perceiver, slices: int) -> None:
        super().__init__()
        self.initial = perceiver.latents
        self.start = chunked.Begin(perceiver.encoder)
        self.slices = slices

    def forward(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """Project the queries once."""
        index = torch.arange(self.slices, device=inputs.device)
        return *self.start(self.initial.expand(inputs.shape[0], -1, -1)), index


class Finish(nn.Module):
    """The final sums to latents (B, N, D)."""

    def __init__(self, perceiver: Perceiver) -> None:
        super().__init__()
        self.initial = perceiver.latents
        self.finish = chunked.Finish(perceiver.encoder)

    def forward(self, total: Tensor, acc: Tensor) -> Tensor:
        """Normalise, and run the rest of the layer."""
        latents: Tensor = self.finish(self.initial.expand(acc.shape[0], -1, -1), total, acc)
        return latents


def finish(perceiver: Perceiver) -> Part:
    """The step after the last fold."""
    _, _, total, acc = state(perceiver.config)
    return part("encoder_finish", Finish(perceiver), (total, acc), (latents_spec(perceiver.config),), "encode")
