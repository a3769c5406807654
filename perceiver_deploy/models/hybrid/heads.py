"""Heads: each asks the trunk's latents with a learned query of its own."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from perceiver_deploy.models.attention import CrossAttentionLayer
from perceiver_deploy.models.hybrid.config import ClassifierConfig, HybridConfig, RegressorConfig


class LatentQuery(nn.Module):
    """Latents (B, N, D) to one vector (B, query_dim): cross-attention from one learned query (Jaegle et al., 3.2)."""

    def __init__(self, config: HybridConfig) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.randn(1, config.query_dim) * 0.02)
        self.ask = CrossAttentionLayer(config.query_dim, config.perceiver.latent_dim, config.perceiver.decoder)

    def forward(self, latents: Tensor) -> Tensor:
        """The answer (B, query_dim) of latents (B, N, D)."""
        answer: Tensor = self.ask(self.query.expand(latents.shape[0], -1, -1), latents)[:, 0]
        return answer


class Classifier(nn.Module):
    """Latents (B, N, D) to logits (B, classes)."""

    def __init__(self, config: HybridConfig, head: ClassifierConfig) -> None:
        super().__init__()
        self.ask = LatentQuery(config)
        self.output = nn.Linear(config.query_dim, head.classes)

    def forward(self, latents: Tensor) -> Tensor:
        """Logits (B, classes) of latents (B, N, D)."""
        logits: Tensor = self.output(self.ask(latents))
        return logits


class Regressor(nn.Module):
    """Latents (B, N, D) to numbers (B, targets) in the target's own unit: scale * output + offset."""

    def __init__(self, config: HybridConfig, head: RegressorConfig) -> None:
        super().__init__()
        self.scale, self.offset = head.scale, head.offset
        self.ask = LatentQuery(config)
        self.output = nn.Linear(config.query_dim, head.targets)

    def forward(self, latents: Tensor) -> Tensor:
        """Numbers (B, targets) of latents (B, N, D)."""
        numbers: Tensor = self.output(self.ask(latents)) * self.scale + self.offset
        return numbers
