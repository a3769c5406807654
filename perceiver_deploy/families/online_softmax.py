"""Encoding by online softmax, for inputs too large to attend to at once: begin, update per chunk, finish.

Inputs are chunked along a slice axis (rows of a frame, frames of a video). Each update computes the tokens of its own
slices, so neither all scores nor all tokens exist at once. `Begin` returns the index of the slices, which gives the
positions of a chunk's tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from perceiver_deploy.families.components import ComponentStep, Specs, component, latents_spec
from perceiver_deploy.models import online_softmax
from perceiver_deploy.models.config import PerceiverConfig
from perceiver_deploy.models.perceiver import Perceiver
from perceiver_runtime.tensors import TensorSpec

NEXT = {"m_next": "m", "total_next": "total", "acc_next": "acc"}
"""Outputs of an update, and the state that they become in the next one."""


def state(config: PerceiverConfig) -> Specs:
    """Scaled queries q, running maximum m, sum total, weighted values acc (see `models.online_softmax`)."""
    heads, latents = config.encoder.heads, config.latents
    widths = {"q": config.encoder.qk_dim // heads, "m": 1, "total": 1, "acc": config.encoder.v_dim // heads}
    return tuple(TensorSpec(name, "float32", ("batch", heads, latents, width)) for name, width in widths.items())


def next_state(config: PerceiverConfig) -> Specs:
    """What an update returns: the next state."""
    following = {after: before for before, after in NEXT.items()}
    return tuple(TensorSpec(following[s.name], s.dtype, s.shape) for s in state(config) if s.name != "q")


class Begin(nn.Module):
    """A chunk of the inputs (only its batch size is used) to the empty state and the index (slices,) of all slices."""

    def __init__(self, perceiver: Perceiver, slices: int) -> None:
        super().__init__()
        self.initial = perceiver.latents
        self.start = online_softmax.Begin(perceiver.encoder)
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
        self.finish = online_softmax.Finish(perceiver.encoder)

    def forward(self, total: Tensor, acc: Tensor) -> Tensor:
        """Normalise, and run the rest of the layer."""
        latents: Tensor = self.finish(self.initial.expand(acc.shape[0], -1, -1), total, acc)
        return latents


def finish(perceiver: Perceiver) -> ComponentStep:
    """The step after the last update."""
    _, _, total, acc = state(perceiver.config)
    return component("encoder_finish", Finish(perceiver), (total, acc), (latents_spec(perceiver.config),), "encode")
