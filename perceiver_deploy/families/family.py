"""Families: how a kind of model is built from its config and cut into components."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import nn

from perceiver_exporters.component import Cut
from perceiver_runtime.settings import Processing
from perceiver_runtime.tensors import Array


@dataclass(frozen=True)
class Family:
    """One kind of model.

    Attributes:
        name: Name of the family.
        summary: One line for users.
        config: Class of its config.
        build: Makes the module from its frozen config.
        cut: Cuts a module into components.
        sample: Draws inputs for a batch size, with the right names, dtypes and shapes. Golden inputs of models without
            data are drawn with it, and their bundles state that.
        presets: Configs by name.
        drawn: What `sample` draws, for reports.
        processing: How the inputs of its released models are made, for a config of theirs; None if none is released.
    """

    name: str
    summary: str
    config: type[Any]
    build: Callable[[Any], nn.Module]
    cut: Callable[[Any], Cut]
    sample: Callable[[Any, int, np.random.Generator], Mapping[str, Array]]
    presets: Mapping[str, Any] = field(default_factory=dict)
    drawn: str = "random values"
    processing: Callable[[Any], Processing] | None = None
