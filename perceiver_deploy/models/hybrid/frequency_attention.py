"""Attention among frequencies; the DFT is a product with constant matrices (no engine imports ONNX `DFT`)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

MAX_LENGTH = 4096
Matrix = np.ndarray[tuple[int, ...], np.dtype[np.float64]]


def dft_matrices(length: int) -> tuple[Matrix, Matrix]:
    """The orthonormal real DFT of `length` samples and its inverse, in FP64.

    Forward (2F, L): rows are cosines, then negated sines, of F = L // 2 + 1 bins. Inverse (L, 2F): bins other
    than the first and, for even L, the last count twice, for their mirror images.
    """
    if length > MAX_LENGTH:
        raise ValueError(f"a DFT of {length:,} samples as a constant matrix; at most {MAX_LENGTH:,} are supported")
    bins, samples = np.arange(length // 2 + 1), np.arange(length)
    angles = 2.0 * np.pi * ((bins[:, None] * samples) % length) / length
    forward = np.concatenate([np.cos(angles), -np.sin(angles)]) / np.sqrt(length)
    mirrored = np.where((bins == 0) | (2 * bins == length), 1.0, 2.0)
    return forward, (forward * np.tile(mirrored, 2)[:, None]).T


class FrequencyAttention(nn.Module):
    """Features (B, L, d) to (B, L, d): softmax(Q K^T / sqrt(n)) V + Q over the F frequency bins as tokens.

    S (B, F, 2d) holds the real and imaginary parts of the DFT along the tokens. Q and K (B, F, n), n = 2d, are
    projections of S; V (B, F, 2d) is a projection of S pooled over the channels, (B, F, 2). The result is
    transformed back. L is fixed: the matrices are constants of the graph.
    """

    forward_dft: Tensor
    inverse_dft: Tensor

    def __init__(self, length: int, dim: int) -> None:
        super().__init__()
        self.length = length
        forward, inverse = dft_matrices(length)
        self.register_buffer("forward_dft", torch.from_numpy(forward.astype(np.float32)), persistent=False)
        self.register_buffer("inverse_dft", torch.from_numpy(inverse.astype(np.float32)), persistent=False)
        self.query, self.key = nn.Linear(2 * dim, 2 * dim), nn.Linear(2 * dim, 2 * dim)
        self.value = nn.Linear(2, 2 * dim)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attend among the frequencies of x (B, length, d); tokens where mask (B, length) is false count as zero."""
        kept = None if mask is None else mask.unsqueeze(-1).to(x.dtype)
        spectrum = self.spectrum(x if kept is None else x * kept)
        mixed = self.inverse(self.attend(spectrum))
        return mixed if kept is None else mixed * kept

    def spectrum(self, x: Tensor) -> Tensor:
        """Real and imaginary parts (B, F, 2d) of x (B, length, d)."""
        real, imaginary = (self.forward_dft @ x).chunk(2, dim=1)
        return torch.cat([real, imaginary], dim=-1)

    def attend(self, spectrum: Tensor) -> Tensor:
        """Attention among the bins of a spectrum (B, F, 2d)."""
        query, key = self.query(spectrum), self.key(spectrum)
        pooled = torch.stack([part.mean(dim=-1) for part in spectrum.chunk(2, dim=-1)], dim=-1)
        scores = torch.softmax(query @ key.transpose(1, 2) * query.shape[-1] ** -0.5, dim=-1)
        attended: Tensor = scores @ self.value(pooled) + query
        return attended

    def inverse(self, spectrum: Tensor) -> Tensor:
        """Samples (B, length, d) of a spectrum (B, F, 2d)."""
        return self.inverse_dft @ torch.cat(spectrum.chunk(2, dim=-1), dim=1)
