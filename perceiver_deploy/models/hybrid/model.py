"""The hybrid model: one trunk from raw inputs to latents, and any number of heads on it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from perceiver_deploy.models.attention import CrossAttentionLayer, ProcessorBlock
from perceiver_deploy.models.hybrid.config import HybridConfig
from perceiver_deploy.models.hybrid.decoder import RecurrentDecoder
from perceiver_deploy.models.hybrid.encoders import ImageEncoder, OptionalImageEncoder, TextEncoder
from perceiver_deploy.models.hybrid.heads import Classifier, Regressor
from perceiver_deploy.models.hybrid.interaction import FeatureInteraction, Features
from perceiver_runtime.errors import UsageError


class Trunk(nn.Module):
    """What the heads share: modality encoders, interaction, and a Perceiver's latents, encoder and processor."""

    def __init__(self, config: HybridConfig) -> None:
        super().__init__()
        if config.image is None and config.text is None:
            raise ValueError("a hybrid model needs an image or a text configuration, got neither")
        self.config, perceiver = config, config.perceiver
        kind = OptionalImageEncoder if "image" in config.optional else ImageEncoder
        self.image = None if config.image is None else kind(config.image)
        self.text = None if config.text is None else TextEncoder(config.text)
        dims = [encoder.dim for encoder in (self.image, self.text) if encoder is not None]
        self.interaction = FeatureInteraction(dims, config.interaction_dim)
        self.latents = nn.Parameter(torch.randn(perceiver.latents, perceiver.latent_dim) * 0.02)
        self.encoder = CrossAttentionLayer(perceiver.latent_dim, config.interaction_dim, perceiver.encoder)
        self.block = ProcessorBlock(perceiver.latent_dim, perceiver.processor)

    def features(self, pixels: Tensor | None = None, ids: Tensor | None = None) -> list[Features]:
        """Features of pixels (B, C, H, W) and ids (B, L), for each modality that the model has."""
        found = []
        if self.image is not None:
            encoded = self.image(pixels)
            found.append(Features(*encoded) if isinstance(encoded, tuple) else Features(encoded))
        if self.text is not None:
            found.append(Features(*self.text(ids)))
        return found

    def encode(self, modalities: list[Features]) -> Tensor:
        """Read the modalities' features into latents (B, N, D)."""
        fused, mask = self.interaction(modalities)
        latents: Tensor = self.encoder(self.latents.expand(fused.shape[0], -1, -1), fused, mask)
        return latents

    def process(self, latents: Tensor) -> Tensor:
        """Refine latents (B, N, D) by the shared block, as often as configured."""
        for _ in range(self.config.perceiver.processor.blocks):
            latents = self.block(latents)
        return latents

    def forward(self, pixels: Tensor | None = None, ids: Tensor | None = None) -> Tensor:
        """Latents (B, N, D) of pixels (B, C, H, W) and ids (B, L)."""
        return self.process(self.encode(self.features(pixels, ids)))


class Hybrid(nn.Module):
    """A trunk and its heads by name: `heads[name](trunk(pixels, ids))`; a generator also takes its tokens."""

    def __init__(self, config: HybridConfig) -> None:
        super().__init__()
        if len(set(config.heads)) < len(config.heads) or not config.heads:
            raise ValueError(f"expected heads with names of their own, got {config.heads}")
        self.config = config
        self.trunk = Trunk(config)
        heads = {h.name: Classifier(config, h) for h in config.classifiers}
        heads |= {h.name: Regressor(config, h) for h in config.regressors}  # type: ignore[misc]
        heads |= {h.name: RecurrentDecoder(config, h) for h in config.generators}  # type: ignore[misc]
        self.heads = nn.ModuleDict(heads)

    def forward(self, pixels: Tensor | None = None, ids: Tensor | None = None) -> dict[str, Tensor]:
        """Outputs of all classifiers and regressors, by name."""
        latents = self.trunk(pixels, ids)
        answering = {n: h for n, h in self.heads.items() if not isinstance(h, RecurrentDecoder)}
        return {name: head(latents) for name, head in answering.items()}

    def generator(self, name: str) -> RecurrentDecoder:
        """The generation head of that name. Raises UsageError."""
        if name not in self.heads or not isinstance(head := self.heads[name], RecurrentDecoder):
            known = ", ".join(g.name for g in self.config.generators) or "none"
            raise UsageError(f"expected a generation head ({known}), got {name!r}")
        return head


def freeze_trunk(model: Hybrid) -> Hybrid:
    """Leave the heads alone to train: no gradients into the trunk, and its batch statistics stay as they are."""
    model.trunk.requires_grad_(False)
    model.trunk.eval()
    return model
