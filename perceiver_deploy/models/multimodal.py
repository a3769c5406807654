"""Multimodal autoencoding of video, audio and class (Jaegle et al. 2021, section 4.3).

The released sizes have 804,737 output queries: the latents are encoded once, and every chunk of queries is
decoded from them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from perceiver_deploy.models.attention import initialise
from perceiver_deploy.models.modalities import MultimodalConfig, MultimodalQueries, MultimodalTokens
from perceiver_deploy.models.perceiver import Perceiver


class MultimodalAutoencoder(nn.Module):
    """Perceiver IO over image (B, T, C, H, W) and audio (B, S, 1), asked for any points of both and the class."""

    def __init__(self, config: MultimodalConfig) -> None:
        super().__init__()
        self.config = config
        self.tokens = MultimodalTokens(config)
        self.queries = MultimodalQueries(config)
        self.perceiver = Perceiver(config.perceiver, self.tokens.dim, self.queries.dim)
        self.project = nn.Linear(self.queries.dim, config.decoded_dim)
        self.image_head = nn.Linear(config.decoded_dim, config.channels)
        self.audio_head = nn.Linear(config.decoded_dim, config.audio_patch)
        self.label_head = nn.Linear(config.decoded_dim, config.classes)
        initialise(self)

    def encode(self, image: Tensor, audio: Tensor) -> Tensor:
        """Image (B, T, C, H, W) and audio (B, S, 1) to latents (B, N, D)."""
        return self.perceiver.encode(self.tokens(image, audio))

    def decode(self, latents: Tensor, queries: Tensor) -> Tensor:
        """Latents (B, N, D) queried by queries (1, O, C) of any modality: (B, O, decoded_dim)."""
        decoded: Tensor = self.project(self.perceiver.decode(queries, latents))
        return decoded

    def decode_image(self, latents: Tensor, coordinates: Tensor) -> Tensor:
        """Pixels (B, O, C) at points (O, 3): frame, row, column."""
        pixels: Tensor = self.image_head(self.decode(latents, self.queries.image(coordinates)))
        return pixels

    def decode_audio(self, latents: Tensor, coordinates: Tensor) -> Tensor:
        """Samples (B, O, audio_patch) of audio patches (O, 1)."""
        samples: Tensor = self.audio_head(self.decode(latents, self.queries.audio(coordinates)))
        return samples

    def decode_label(self, latents: Tensor) -> Tensor:
        """Class logits (B, classes)."""
        logits: Tensor = self.label_head(self.decode(latents, self.queries.label())[:, 0])
        return logits

    def forward(self, image: Tensor, audio: Tensor, points: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Answer `points`: "image" (O, 3), "audio" (O, 1), either may be absent; "label" is always answered."""
        latents = self.perceiver.process(self.encode(image, audio))
        heads = {"image": self.decode_image, "audio": self.decode_audio}
        answers = {name: heads[name](latents, coordinates) for name, coordinates in points.items()}
        return {**answers, "label": self.decode_label(latents)}

    def reconstruct(self, image: Tensor, audio: Tensor, chunk: int) -> dict[str, Tensor]:
        """The complete output, at most `chunk` queries at a time: image (B, T, H, W, C), audio (B, S, 1), label."""
        latents = self.perceiver.process(self.encode(image, audio))
        pixels = by_chunks(self.decode_image, latents, self.config.video, chunk)
        samples = by_chunks(self.decode_audio, latents, self.config.audio, chunk)
        return {
            "image": pixels.reshape(-1, *self.config.video, self.config.channels),
            "audio": samples.flatten(1)[..., None],
            "label": self.decode_label(latents),
        }


def coordinates_of(index: Tensor, sizes: Sequence[int]) -> Tensor:
    """Row-major indices (O,) into a grid as coordinates (O, axes)."""
    return torch.stack(torch.unravel_index(index, tuple(sizes)), dim=-1)


def by_chunks(decode: Callable[[Tensor, Tensor], Tensor], latents: Tensor, sizes: Sequence[int], chunk: int) -> Tensor:
    """Decode every point of a grid, `chunk` at a time: (B, prod(sizes), width)."""
    points = coordinates_of(torch.arange(math.prod(sizes), device=latents.device), sizes)
    return torch.cat([decode(latents, chunk_points) for chunk_points in torch.split(points, chunk)], dim=1)
