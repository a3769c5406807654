"""What it takes to be a precision: a graph rewrite, its emulation in PyTorch, and bounds on their difference."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import onnx_ir as ir

from perceiver_exporters.component import Cut
from perceiver_exporters.reference import Scope
from perceiver_runtime.tensors import Array

Feeds = Mapping[str, Array]


@dataclass(frozen=True)
class Request:
    """What a rewrite may need beside the graph.

    `scheme` names the target's INT8 scheme; `calibration` starts a stream of the component's own reference
    inputs over the whole calibration set, all repetitions and pieces included.
    """

    component: str
    scheme: str
    calibration: Callable[[], Iterator[Feeds]]


@dataclass(frozen=True)
class Precision:
    """A table entry.

    `rewrite` turns an FP32 graph into this precision; `emulate` gives the context in which PyTorch makes the same
    roundings, from (cut, calibration samples, INT8 scheme). A bundle's tolerance is the error of the emulated
    reference times `margin`, and at least `floor`. `share` is the least part of the constant-weight products'
    FLOPs that must be found in this precision in the rewritten graph.
    """

    name: str
    summary: str
    rewrite: Callable[[ir.Model, Request], ir.Model]
    emulate: Callable[[Cut, tuple[Feeds, ...], str], Scope]
    margin: float
    floor: float
    share: float
    calibrated: bool = False
