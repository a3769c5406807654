"""Input and query adapters of the multimodal autoencoder (Jaegle et al. 2021, section 4.3 and appendix G).

Every modality is padded to one width by a learned vector of its own, and follows the others along the tokens in
the order audio, image, label.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from perceiver_deploy.models.config import PerceiverConfig
from perceiver_deploy.models.pixels import with_positions
from perceiver_deploy.models.positions import GridPositions, Spacing


@dataclass(frozen=True)
class MultimodalConfig:
    """Video (frames, channels, height, width) and audio (samples, 1) in; both and a class out.

    Video is cut into patches of `patch` x `patch` pixels, audio into patches of `audio_patch` samples; positions
    are encoded by `video_bands` up to `video_resolution` / 2 per axis and by `audio_bands`. `label_dim` is the width
    of the learned class query, `decoded_dim` that of the decoder's output. `spacing` says where the queried points
    lie: the released weights were used with "subsampled" (-1 + 2 i / n); "full" is linspace(-1, 1).
    """

    frames: int
    channels: int
    height: int
    width: int
    patch: int
    samples: int
    audio_patch: int
    video_bands: int
    video_resolution: tuple[int, ...]
    audio_bands: int
    label_dim: int
    classes: int
    decoded_dim: int
    perceiver: PerceiverConfig
    input_padding: int = 4
    query_padding: int = 2
    spacing: Spacing = "subsampled"

    @property
    def video(self) -> tuple[int, int, int]:
        """Points of the output video: frames, rows, columns."""
        return self.frames, self.height, self.width

    @property
    def audio(self) -> tuple[int]:
        """Points of the output audio: patches."""
        return (self.samples // self.audio_patch,)


def space_to_depth(video: Tensor, patch: int) -> Tensor:
    """Video (B, T, C, H, W) to patches (B, T * H/p * W/p, p * p * C), pixels row major and channels innermost."""
    frames, channels, height, width = video.shape[1:]
    cut = video.reshape(-1, frames, channels, height // patch, patch, width // patch, patch)
    return cut.permute(0, 1, 3, 5, 4, 6, 2).flatten(4).flatten(1, 3)


class MultimodalTokens(nn.Module):
    """Input adapter: video and audio patches with positions, and one learned token in the place of the label.

    The label is hidden from the model, which makes it a classifier: a constant stands where the label would be, and
    the label is no input.
    """

    def __init__(self, config: MultimodalConfig) -> None:
        super().__init__()
        self.patch, self.audio_patch = config.patch, config.audio_patch
        grid = (config.frames, config.height // config.patch, config.width // config.patch)
        self.video_positions = GridPositions(grid, config.video_resolution, config.video_bands)
        self.audio_positions = GridPositions(config.audio, (config.samples,), config.audio_bands)
        video = config.channels * config.patch**2 + self.video_positions.dim
        audio = config.audio_patch + self.audio_positions.dim
        self.dim = max(video, audio, config.classes) + config.input_padding
        self.video_padding = nn.Parameter(torch.randn(1, self.dim - video) * 0.02)
        self.audio_padding = nn.Parameter(torch.randn(1, self.dim - audio) * 0.02)
        self.label_token = nn.Parameter(torch.randn(1, self.dim) * 0.02)

    def forward(self, image: Tensor, audio: Tensor) -> Tensor:
        """Tokens (B, audio patches + video patches + 1, dim) of image (B, T, C, H, W) and audio (B, S, 1)."""
        sound, sight = self.audio(audio), self.video(image)
        return torch.cat([sound, sight, self.label(image.shape[0])], dim=1)

    def audio(self, audio: Tensor) -> Tensor:
        """Tokens (B, S / audio_patch, dim) of audio (B, S, 1)."""
        patches = audio.reshape(audio.shape[0], -1, self.audio_patch)
        return with_positions(patches, pad(self.audio_positions.all(), self.audio_padding))

    def video(self, image: Tensor) -> Tensor:
        """Tokens (B, T * H/p * W/p, dim) of image (B, T, C, H, W)."""
        patches = space_to_depth(image, self.patch)
        return with_positions(patches, pad(self.video_positions.all(), self.video_padding))

    def frames(self, image: Tensor, index: Tensor) -> Tensor:
        """Tokens (B, O * H/p * W/p, dim) of the frames `index` (O,), given (B, O, C, H, W): a chunk of `video`."""
        patches = space_to_depth(image, self.patch)
        return with_positions(patches, pad(self.video_positions.slices(index), self.video_padding))

    def label(self, batch: int) -> Tensor:
        """The token (B, 1, dim) that stands where the label would be."""
        return self.label_token.expand(batch, 1, -1)


class MultimodalQueries(nn.Module):
    """Query adapter: any points of the output video and audio by their coordinates, and the class."""

    def __init__(self, config: MultimodalConfig) -> None:
        super().__init__()
        self.video_positions = GridPositions(config.video, config.video_resolution, config.video_bands, config.spacing)
        self.audio_positions = GridPositions(config.audio, (config.samples,), config.audio_bands, config.spacing)
        widths = (self.video_positions.dim, self.audio_positions.dim, config.label_dim)
        self.dim = max(widths) + config.query_padding
        self.video_padding = nn.Parameter(torch.randn(1, self.dim - widths[0]) * 0.02)
        self.audio_padding = nn.Parameter(torch.randn(1, self.dim - widths[1]) * 0.02)
        self.label_padding = nn.Parameter(torch.randn(1, self.dim - widths[2]) * 0.02)
        self.label_query = nn.Parameter(torch.randn(1, config.label_dim) * 0.02)

    def image(self, coordinates: Tensor) -> Tensor:
        """Queries (1, O, dim) of video points (O, 3): frame, row, column."""
        return pad(self.video_positions(coordinates), self.video_padding)[None]

    def audio(self, coordinates: Tensor) -> Tensor:
        """Queries (1, O, dim) of audio patches (O, 1)."""
        return pad(self.audio_positions(coordinates), self.audio_padding)[None]

    def label(self) -> Tensor:
        """The query (1, 1, dim) of the class."""
        return pad(self.label_query, self.label_padding)[None]


def pad(features: Tensor, padding: Tensor) -> Tensor:
    """Features (M, P) widened by one learned vector (1, Q): (M, P + Q)."""
    return torch.cat([features, padding.expand(features.shape[0], -1)], dim=-1)
