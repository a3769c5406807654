"""Hashes of the weights and samples that a bundle is made from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from perceiver_runtime.tensors import Array


class _Hash(Protocol):
    def update(self, data: bytes, /) -> None: ...


def weights_sha256(module: nn.Module) -> str:
    """SHA-256 over the module's persistent tensors, sorted by name: name, dtype, shape and bytes of each."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        _update(digest, name, str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape), _bytes(tensor))
    return digest.hexdigest()


def samples_sha256(samples: Iterable[Mapping[str, Array]]) -> str:
    """SHA-256 over samples in order, and within each over its arrays sorted by name."""
    digest = hashlib.sha256()
    for sample in samples:
        for name, array in sorted(sample.items()):
            update_sha256(digest, name, array)
    return digest.hexdigest()


def update_sha256(digest: _Hash, name: str, array: Array) -> None:
    """Add an array to a hash: name, dtype, shape and bytes."""
    _update(digest, name, array.dtype.name, array.shape, np.ascontiguousarray(array).tobytes())


def _update(digest: _Hash, name: str, dtype: str, shape: tuple[int, ...], content: bytes) -> None:
    digest.update(f"{name}\0{dtype}\0{','.join(map(str, shape))}\0".encode())
    digest.update(content)


def _bytes(tensor: Tensor) -> bytes:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return bytes(flat.view(torch.uint8).numpy().data)
