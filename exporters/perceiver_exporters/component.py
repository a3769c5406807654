"""The exporters' model: traceable components, and the pipeline that connects them.

A family (in `perceiver_deploy`) makes a `Cut`; nothing here depends on Perceivers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from perceiver_exporters.stream import FeedStream
from perceiver_runtime.manifest import DataRecord, Source
from perceiver_runtime.pipeline import Pipeline
from perceiver_runtime.settings import Processing
from perceiver_runtime.tensors import Array, Profile, Range, TensorSpec


@dataclass(frozen=True)
class Component:
    """One traceable graph.

    Attributes:
        name: Name of the component and its graph.
        module: Called as `module(*inputs)`; returns one tensor or a tuple, in the order of `outputs`.
        inputs: Specs of its inputs, with symbolic dimensions.
        outputs: Specs of its outputs.
    """

    name: str
    module: nn.Module
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


@dataclass(frozen=True)
class Cut:
    """A model cut into components, with the pipeline that connects them and the sizes it accepts.

    Attributes:
        components: The components.
        pipeline: Steps, inputs and outputs.
        profile: Range of each symbolic dimension in the bundle.
        limits: Ranges to trace with (None: the profile), so that graphs stay dynamic where the profile is narrow.
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
    """A model ready to be exported.

    Attributes:
        source: Name, family and hash of the weights.
        cut: Its components.
        golden: Reference inputs that are stored in the bundle.
        calibration: Real inputs for INT8 ranges, disjoint from evaluation data, read anew in each pass; empty for a
            model without data, for which int8 is refused.
        labels: Class names, if there are any.
        golden_origin: Where the golden inputs are from: a data set and its split, or random values.
        processing: How images, texts and the like become inputs, if that is known.
        data: The data that golden and calibration inputs are drawn from, if they are the user's.
    """

    source: Source
    cut: Cut
    golden: tuple[Mapping[str, Array], ...]
    calibration: FeedStream = ()
    labels: tuple[str, ...] = ()
    golden_origin: str = ""
    processing: Processing | None = None
    data: DataRecord | None = None
