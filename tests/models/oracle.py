"""Peer libraries as oracles: random weights that leave no tensor without effect, and how far two outputs lie apart."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from factories.weights import randomise
from torch import Tensor, nn

REDUCED: dict[str, Any] = {
    "num_latents": 8,
    "d_latents": 32,
    "d_model": 24,
    "num_blocks": 2,
    "num_self_attends_per_block": 2,
    "num_self_attention_heads": 4,
    "num_cross_attention_heads": 1,
    "max_position_embeddings": 20,
    "vocab_size": 50,
    "num_labels": 7,
}


def relative(ours: Tensor, theirs: Tensor) -> float:
    """Relative L2 distance, in FP64. Shapes must agree."""
    assert ours.shape == theirs.shape, f"{tuple(ours.shape)} against {tuple(theirs.shape)}"
    return float((ours.double() - theirs.double()).norm() / theirs.double().norm())


def saved(oracle: nn.Module, directory: Path, **options: Any) -> Path:
    """What `save_pretrained` writes."""
    oracle.save_pretrained(directory, **options)
    return directory


@dataclass(frozen=True)
class Case:
    """One class of transformers: its config, and inputs for it."""

    name: str
    config: Mapping[str, Any]
    inputs: Callable[[], dict[str, Tensor]]
    image_size: tuple[int, int] | None = None
    sharpness: float = 2.0

    def oracle(self, seed: int = 0) -> nn.Module:
        import transformers

        config = transformers.PerceiverConfig(**self.config)
        return randomise(getattr(transformers, self.name)(config), seed, sharpness=self.sharpness, tables=1.0)


def text(batch: int, length: int, vocabulary: int) -> Callable[[], dict[str, Tensor]]:
    """Ids, and a mask that hides the end of the first row."""

    def draw() -> dict[str, Tensor]:
        mask = torch.ones(batch, length, dtype=torch.long)
        mask[0, length // 2 :] = 0
        return {"input_ids": torch.randint(0, vocabulary, (batch, length)), "attention_mask": mask}

    return draw


def normal(name: str, *shape: int) -> Callable[[], dict[str, Tensor]]:
    return lambda: {name: torch.randn(*shape)}


@contextmanager
def exact_positions() -> Iterator[None]:
    """Let transformers compute its Fourier features in FP64, as we do, rather than in FP32.

    In FP32 its arguments of hundreds of radians are rounded, which a sharp attention shows: the outputs then differ
    by transformers' own error, not by ours.
    """
    from transformers.models.perceiver import modeling_perceiver as theirs

    def encode(self, index_dims, batch_size, device, dtype, pos=None):
        sizes = torch.tensor(index_dims, dtype=torch.float64)
        if pos is None:
            axes = [torch.linspace(-1, 1, n, dtype=torch.float64) for n in index_dims]
            points = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, -2)
        else:  # subsampled points come as -1 + 2 i / n, rounded to FP32
            points = 2 * ((pos[0].double() + 1) / 2 * sizes).round() / sizes - 1
        frequencies = torch.stack(
            [torch.linspace(1, r / 2, self.num_bands, dtype=torch.float64) for r in self.max_resolution]
        )
        angles = torch.pi * (points[:, :, None] * frequencies).flatten(1)
        return torch.cat([points, angles.sin(), angles.cos()], dim=-1).to(dtype).expand(batch_size, -1, -1)

    encoding = theirs.PerceiverFourierPositionEncoding
    original, encoding.forward = encoding.forward, encode
    try:
        yield
    finally:
        encoding.forward = original


os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
