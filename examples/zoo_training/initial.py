"""Initial weights of narrow models."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

M = TypeVar("M", bound=nn.Module)


def draw_linear(module: M) -> M:
    """Draw every linear layer at std 1/sqrt(fan_in) (LeCun), biases zero.

    At the released models' std of 0.02, or with biases as large as PyTorch draws them, all inputs of a model as
    narrow as ours look nearly alike to its heads, and training takes long to tell them apart.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            torch.nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
            torch.nn.init.zeros_(layer.bias)
    return module
