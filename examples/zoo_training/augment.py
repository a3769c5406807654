"""Augmentation of image batches, drawn from a generator so that a seed fixes it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror each of the images (B, C, H, W) left to right with probability 1/2."""
    chosen = torch.rand(len(images), generator=generator) < 0.5
    return torch.where(chosen[:, None, None, None], images.flip(-1), images)


def shift(images: Tensor, pixels: int, generator: torch.Generator) -> Tensor:
    """Move each of the images (B, C, H, W) by up to `pixels` on both axes; the border repeats outwards."""
    B, C, H, W = images.shape
    padded = F.pad(images, (pixels,) * 4, mode="replicate")
    top, left = torch.randint(0, 2 * pixels + 1, (2, B, 1), generator=generator)
    rows, columns = top + torch.arange(H), left + torch.arange(W)
    sample, channel = torch.arange(B)[:, None, None, None], torch.arange(C)[None, :, None, None]
    return padded[sample, channel, rows[:, None, :, None], columns[:, None, None, :]]
