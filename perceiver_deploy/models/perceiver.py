"""Perceiver IO: inputs of any size are read into N latents, refined there, and asked for any set of outputs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from perceiver_deploy.models.attention import CrossAttentionLayer, ProcessorBlock
from perceiver_deploy.models.config import PerceiverConfig


class Perceiver(nn.Module):
    """The part that all families share: latents, encoder, processor, decoder (Jaegle et al. 2021, figure 2).

    Adapters around it turn raw inputs into (B, M, input_dim), make the output queries (B, O, query_dim), and
    turn the decoded (B, O, query_dim) into the task's outputs.
    """

    def __init__(self, config: PerceiverConfig, input_dim: int, query_dim: int) -> None:
        super().__init__()
        self.config = config
        self.latents = nn.Parameter(torch.randn(config.latents, config.latent_dim) * 0.02)
        self.encoder = CrossAttentionLayer(config.latent_dim, input_dim, config.encoder)
        self.block = ProcessorBlock(config.latent_dim, config.processor)
        self.decoder = CrossAttentionLayer(query_dim, config.latent_dim, config.decoder)

    def encode(self, inputs: Tensor, mask: Tensor | None = None) -> Tensor:
        """Read inputs (B, M, C), where mask (B, M) is true, into latents (B, N, D). Section 3.1."""
        latents = self.latents.expand(inputs.shape[0], -1, -1)
        encoded: Tensor = self.encoder(latents, inputs, mask)
        return encoded

    def process(self, latents: Tensor) -> Tensor:
        """Refine latents (B, N, D) by the shared block, as often as configured."""
        for _ in range(self.config.processor.blocks):
            latents = self.block(latents)
        return latents

    def decode(self, queries: Tensor, latents: Tensor) -> Tensor:
        """Ask latents (B, N, D) with queries (B, O, query_dim): (B, O, query_dim). Section 3.2."""
        decoded: Tensor = self.decoder(queries, latents)
        return decoded
