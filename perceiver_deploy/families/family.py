"""A family: how one kind of model is built from its config and cut into components."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import nn

from perceiver_exporters.component import Cut
from perceiver_runtime.tensors import Array


@dataclass(frozen=True)
class Family:
    """A table entry, not a base class: `build` makes the module from its frozen config, `cut` its components.

    `sample` draws inputs of the right names, dtypes and shapes for a batch size; it stands in where a model has
    no data of its own, and a bundle made from it says so. `presets` are configs known by name.
    """

    name: str
    summary: str
    config: type[Any]
    build: Callable[[Any], nn.Module]
    cut: Callable[[Any], Cut]
    sample: Callable[[Any, int, np.random.Generator], Mapping[str, Array]]
    presets: Mapping[str, Any] = field(default_factory=dict)
