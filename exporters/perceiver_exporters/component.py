"""What the exporters work on: a model cut into traceable components, and the pipeline that joins them again.

A family (in `perceiver_deploy`) makes a `Cut`; nothing here knows what a Perceiver is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from perceiver_runtime.manifest import Source
from perceiver_runtime.pipeline import Pipeline
from perceiver_runtime.tensors import Array, Profile, Range, TensorSpec


@dataclass(frozen=True)
class Component:
    """One traceable graph: `module(*inputs)` returns one tensor or a tuple of tensors, in the order of `outputs`."""

    name: str
    module: nn.Module
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


@dataclass(frozen=True)
class Cut:
    """A model cut into components, the pipeline that joins them, and the sizes it accepts.

    Graphs are traced over `limits` (None: over the profile), so that they stay dynamic where the profile is narrow.
    """

    components: tuple[Component, ...]
    pipeline: Pipeline
    profile: Profile
    limits: Profile | None = None

    def component(self, name: str) -> Component:
        """The component of that name. Raises KeyError."""
        for component in self.components:
            if component.name == name:
                return component
        raise KeyError(name)

    def resized(self, profile: Profile) -> Cut:
        """The cut for another profile, traced over the sizes of both."""
        limits = (self.limits or self.profile).dimensions
        widest = {
            name: Range(min(own.min, new.min), own.opt, max(own.max, new.max))
            for name, own in limits.items()
            if (new := profile.dimensions.get(name, own))
        }
        return dataclasses.replace(self, profile=profile, limits=Profile("limits", widest))


@dataclass(frozen=True)
class Blueprint:
    """A model ready to be exported: where it came from, how it is cut, and real inputs for it.

    `golden` are the reference inputs stored in the bundle; `calibration` are real inputs, disjoint from any
    evaluation data, from which INT8 ranges are taken (empty for a model without data: int8 is then refused).
    `labels` name the classes, where there are any. `golden_origin` says where the golden inputs came from: a data set
    and its split, or random values.
    """

    source: Source
    cut: Cut
    golden: tuple[Mapping[str, Array], ...]
    calibration: tuple[Mapping[str, Array], ...] = ()
    labels: tuple[str, ...] = ()
    golden_origin: str = ""
