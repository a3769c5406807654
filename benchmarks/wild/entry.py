"""One published module: where it is found, how it is made, and inputs of its kind."""

from __future__ import annotations

import importlib
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec
from pathlib import Path

import numpy as np
import torch
from torch import nn

from perceiver_deploy.datasets import DATASETS
from perceiver_deploy.datasets.dataset import ArraySamples
from perceiver_runtime.tensors import Array, Range

Feeds = Mapping[str, Array]


@dataclass(frozen=True)
class Entry:
    """One module.

    Attributes:
        name: Class, and the package where names repeat.
        package: Distribution, with the version that the class was found in.
        make: Makes the module, at the sizes that `size` states.
        inputs: Draws a batch of inputs.
        size: Sizes, and what was reduced.
        kind: What the inputs stand for.
        requires: Further distributions; all are installed without their dependencies.
        dynamic: Symbolic shapes of inputs that vary in more than the batch.
        ranges: Ranges of these dimensions.
        rows: Rows of each call; more than one where the batch may vary.
        note: Why the batch is fixed, or inputs are left out.
        installed: Whether the development environment has the package.
    """

    name: str
    package: str
    make: Callable[[], nn.Module]
    inputs: Callable[[np.random.Generator, int], Feeds]
    size: str
    kind: str
    requires: tuple[str, ...] = ()
    dynamic: Mapping[str, Sequence[int | str]] = field(default_factory=dict)
    ranges: Mapping[str, Range] = field(default_factory=dict)
    rows: int = 2
    note: str = ""
    installed: bool = False

    @property
    def slug(self) -> str:
        """Name of its bundles."""
        return "".join(c if c.isalnum() else "-" for c in self.name.lower())

    @property
    def folder(self) -> str:
        """Folder of its package below `--packages`."""
        return self.package.split("==")[0]


class Absent(types.ModuleType):
    """A module that is not there; whatever is imported from it is a class without content."""

    __path__: list[str] = []  # noqa: RUF012 - Python's own name

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


def absent(*modules: str) -> None:
    """Let imports of these modules succeed where a package imports more than the module in question uses."""
    for name in modules:
        if name not in sys.modules:
            sys.modules[name] = Absent(name)
            sys.modules[name].__spec__ = ModuleSpec(name, None)


def without_init(*packages: str) -> None:
    """Let modules of these packages be imported without what the packages' own `__init__` imports."""
    for name in packages:
        if name in sys.modules:
            continue
        parent, _, last = name.rpartition(".")
        places = importlib.import_module(parent).__path__ if parent else sys.path
        found = next((str(Path(place, last)) for place in places if Path(place, last).is_dir()), None)
        if found is None:
            raise ModuleNotFoundError(f"No module named {name!r}")
        module = types.ModuleType(name)
        module.__path__ = [found]
        sys.modules[name] = module


def drawn(module: nn.Module, seed: int = 0) -> nn.Module:
    """The module with weights for which inputs matter, as after training.

    Matrices and kernels are drawn with a standard deviation of fan_in ** -0.5, so that activations keep their size;
    other parameters keep the initial values that their package gives them, with noise of 0.1.
    """
    torch.manual_seed(seed)
    tables = {id(layer.weight) for layer in module.modules() if isinstance(layer, nn.Linear | nn.Conv2d | nn.Conv3d)}
    with torch.no_grad():
        for parameter in module.parameters():
            if id(parameter) in tables:
                parameter.normal_(0, parameter[0].numel() ** -0.5)
            else:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return module.eval().requires_grad_(False)


def features(random: np.random.Generator, *shape: int) -> Array:
    """Features of variance 1, of which each row's tokens share the greater part, as an image's or a text's do."""
    shared = random.standard_normal((shape[0], *[1] * (len(shape) - 2), shape[-1]), dtype=np.float32)
    own = random.standard_normal(shape, dtype=np.float32)
    return np.float32(0.8) * shared + np.float32(0.6) * own


def normal(**shapes: tuple[int, ...]) -> Callable[[np.random.Generator, int], Feeds]:
    """Random features of these shapes, without the batch."""
    return lambda random, batch: {name: features(random, batch, *shape) for name, shape in shapes.items()}


def mask(random: np.random.Generator, batch: int, length: int) -> Array:
    """Ones up to a random place in the second half of each row, then zeros: (batch, length), int64."""
    ends = random.integers(length // 2, length + 1, (batch, 1))
    return (np.arange(length) < ends).astype(np.int64)


def _shipped(dataset: str, name: str) -> Array:
    """An input's samples of a data set that the project ships."""
    samples = DATASETS[dataset]().calibration
    assert isinstance(samples, ArraySamples)
    return samples.inputs[name]


def pictures(size: int, channels: int = 3, name: str = "data", *, channels_last: bool = True) -> Callable[..., Feeds]:
    """Pictures of the emoji data set (colour) or of Fashion-MNIST (grey), repeated to the size."""

    def draw(random: np.random.Generator, batch: int) -> Feeds:
        images = _shipped("emoji" if channels == 3 else "fashion-mnist", "pixel_values")
        chosen = images[random.integers(0, len(images), batch)]
        factor = -(-size // chosen.shape[-1])
        chosen = chosen.repeat(factor, -1).repeat(factor, -2)[..., :size, :size]
        return {name: np.ascontiguousarray(np.moveaxis(chosen, 1, -1) if channels_last else chosen, np.float32)}

    return draw


def texts(length: int, name: str = "x") -> Callable[[np.random.Generator, int], Feeds]:
    """Bytes of texts of the languages data set: (batch, length), int64."""

    def draw(random: np.random.Generator, batch: int) -> Feeds:
        ids = _shipped("languages", "input_ids")
        chosen = ids[random.integers(0, len(ids), (batch, -(-length // ids.shape[1])))]
        return {name: chosen.reshape(batch, -1)[:, :length].astype(np.int64)}

    return draw


def fixed(inputs: Callable[[np.random.Generator, int], Feeds]) -> dict[str, tuple[int, ...]]:
    """The shapes of one row, none of which varies."""
    return {name: array.shape for name, array in inputs(np.random.default_rng(0), 1).items()}


def pending(module: str, attribute: str) -> type[nn.Module]:
    """A class of a module that is imported now."""
    return getattr(importlib.import_module(module), attribute)
