"""Random weights for every test that needs a module: no tensor without effect, no two alike."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

_M = TypeVar("_M", bound=nn.Module)
_NORMS = (nn.LayerNorm, nn.BatchNorm2d)
_QUERIES_AND_KEYS = ("query", "key", "q_proj", "k_proj", "to_q")


def randomise(
    module: _M, seed: int = 0, *, sharpness: float = 1.0, spread: bool = False, tables: float | None = None
) -> _M:
    """Draw every parameter and every statistic of batch normalisation, in place.

    Matrices and kernels are drawn with a standard deviation of `fan_in ** -0.5`, which keeps activations near 1;
    biases with 0.3 around 0 and the weights of normalisations with 0.3 around 1.

    Args:
        module: Any module, its parameters on the CPU.
        seed: Seed of PyTorch's generator, which goes on from there.
        sharpness: Factor for the weights of queries and keys: attention that averages over all inputs hides errors.
        tables: Standard deviation of embeddings, positions and latents (None: as matrices); vectors that pad each token
            alike get a tenth of it, so that tokens differ by more than their padding.
        spread: Scale each output channel by a power of two of its own, 2 ** N(0, 1).

    Returns:
        The module, in evaluation mode and without gradients.
    """
    torch.manual_seed(seed)
    with torch.no_grad():
        for path, layer in module.named_modules():
            gain = sharpness if path.endswith(_QUERIES_AND_KEYS) else 1.0
            for name, parameter in layer.named_parameters(recurse=False):
                if parameter.ndim < 2:
                    parameter.normal_(float(name == "weight" and isinstance(layer, _NORMS)), 0.3)
                    continue
                if tables is not None and not isinstance(layer, nn.Linear | nn.Conv2d):
                    parameter.normal_(0, tables * (0.1 if isinstance(layer, nn.ParameterDict) else 1.0))
                    continue
                channels = torch.exp2(torch.randn(len(parameter), *[1] * (parameter.ndim - 1))) if spread else 1.0
                parameter.normal_(0, gain * parameter[0].numel() ** -0.5).mul_(channels)
            if isinstance(layer, nn.BatchNorm2d):
                statistics = dict(layer.named_buffers())
                statistics["running_mean"].normal_(0, 0.3)
                statistics["running_var"].uniform_(0.5, 1.5)
                statistics["num_batches_tracked"].fill_(3)
    return module.eval().requires_grad_(False)
