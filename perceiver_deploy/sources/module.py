"""A module of the user's own as a `Model`: called as its example shows, cut without a family."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from perceiver_deploy.datasets.dataset import GOLDEN
from perceiver_deploy.families.family import Family
from perceiver_exporters.cutting import cut_module
from perceiver_exporters.cutting.call import Called, Example, arrays, check_names, is_array, tensors
from perceiver_exporters.cutting.program import example_arrays
from perceiver_runtime.errors import CheckpointError, UsageError
from perceiver_runtime.format.ranges import BATCH
from perceiver_runtime.suggest import did_you_mean
from perceiver_runtime.tensors import Array, Profile, Range, TensorSpec

FAMILY = "module"
BATCHES = Range(1, 1, 64)
CONSTANTS = (bool, int, float, str, type(None))


@dataclass(frozen=True)
class ModuleConfig:
    """How a module of the user's is called and cut; stored in its bundles.

    Attributes:
        entry: The function that made it, as the user named it, or its class.
        code_sha256: Hash of the file with that function; empty for a module that was given as an object.
        inputs: Specs of its inputs.
        constants: Arguments of `forward` that are no tensors.
        ranges: Ranges of the symbolic dimensions.
        cut: Submodules that are components; none: found.
    """

    entry: str
    code_sha256: str
    inputs: tuple[TensorSpec, ...]
    constants: Mapping[str, Any] = field(default_factory=dict)
    ranges: Mapping[str, Range] = field(default_factory=dict)
    cut: tuple[str, ...] = ()


@dataclass(frozen=True)
class Call:
    """How a module is to be called, as the user's options say.

    Attributes:
        example: Inputs by name.
        dynamic: By input, its shape with names for dimensions that vary; inputs that are left out vary in the first.
        ranges: Ranges of dimensions; the others have `BATCHES`, or take up to the size of the example.
        cut: See `ModuleConfig`.
    """

    example: Example
    dynamic: Mapping[str, Sequence[int | str]] = field(default_factory=dict)
    ranges: Mapping[str, Range] = field(default_factory=dict)
    cut: Sequence[str] = ()

    def config(self, module: nn.Module, entry: str, code_sha256: str) -> ModuleConfig:
        """The config for a module. Raises UsageError where the options do not fit the module or each other."""
        check_names(module, self.example)
        constants = {name: value for name, value in self.example.items() if not is_array(value)}
        for name, value in constants.items():
            if not isinstance(value, CONSTANTS):
                raise UsageError(
                    f"inputs: {name}: expected an array with a batch axis, or a constant (number, text, None), got "
                    f"{type(value).__name__}"
                )
        given = arrays(self.example)
        if unknown := [name for name in self.dynamic if name not in given]:
            raise UsageError(
                f"dynamic (--dynamic): expected inputs of {', '.join(given)}, got {unknown[0]!r:.80}"
                f"{did_you_mean(unknown[0], given)}"
            )
        specs = tuple(_spec(name, array, self.dynamic.get(name), given) for name, array in given.items())
        ranges = _ranges(specs, given, self.ranges)
        return ModuleConfig(entry, code_sha256, specs, constants, ranges, tuple(self.cut))


def family_of(module: nn.Module, config: ModuleConfig, example: Example | None = None) -> tuple[Family, str]:
    """The family of one module, and why it is one component, if it is.

    Raises:
        CheckError: The module can't be traced.
        CheckpointError: Its weights are not in FP32.
        UsageError: The cut names no submodules of it.
    """
    _require_fp32(module)
    profile = Profile("default", config.ranges)
    call = {**(example or example_arrays(config.inputs, profile)), **config.constants}
    with evaluating(module):
        cutting = cut_module(module, call, config.inputs, profile, config.cut)
    rows = arrays(example or {})
    family = Family(
        FAMILY,
        "a module of the user's own",
        ModuleConfig,
        build=lambda _: module,
        cut=lambda _: cutting.cut,
        sample=lambda _, batch, random: _sample(config, rows, batch, random),
        drawn="rows of the example" if _rows(config, rows) >= GOLDEN else "random values like the example's",
    )
    return family, cutting.note


def example_of(record: Mapping[str, Any] | None, module: nn.Module) -> Example | None:
    """The inputs that `forward` takes in a record of data, as a batch; the rest are targets.

    A record is a batch or one sample: a batch has one number of rows in all its arrays. What the module refuses is
    taken for the other.
    """
    parameters = inspect.signature(module.forward).parameters
    given = {name: np.asarray(value) for name, value in (record or {}).items()}
    batch = {name: array for name, array in given.items() if name.partition(".")[0] in parameters}
    if not batch:
        return None
    sample = {name: np.stack([array, array]) for name, array in batch.items()}
    rows = {array.shape[:1] for array in given.values()}
    choices = (batch, sample) if len(rows) == 1 and () not in rows else (sample, batch)
    return next((each for each in choices if _takes(module, each)), choices[0])


def _takes(module: nn.Module, example: Example) -> bool:
    try:
        with evaluating(module), torch.no_grad():
            Called(module, example)(*tensors(example).values())
    except Exception:  # whatever the user's code raises; the trace will say it again
        return False
    return True


def own_call(module: nn.Module, config: ModuleConfig, feeds: Mapping[str, Array]) -> Callable[[], object]:
    """A call of the whole module on feeds, in inference mode."""
    inputs = {spec.name: torch.from_numpy(np.array(feeds[spec.name])) for spec in config.inputs}
    called = Called(module, {**inputs, **config.constants}).eval()

    def call() -> object:
        with torch.inference_mode():
            return called(*inputs.values())

    return call


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """The module in evaluation mode, and as it was afterwards."""
    training = [each for each in module.modules() if each.training]
    module.eval()
    try:
        yield
    finally:
        for each in training:
            each.training = True


def _require_fp32(module: nn.Module) -> None:
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            kind = str(tensor.dtype).removeprefix("torch.")
            raise CheckpointError(
                f"{type(module).__name__}: expected weights in float32, got {kind} ({name}); call .float(), the export "
                "chooses the precision"
            )
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise CheckpointError(f"{type(module).__name__}: {name} has NaN or infinity; did the training diverge?")


def _spec(name: str, array: Array, shape: Sequence[int | str] | None, given: Mapping[str, Array]) -> TensorSpec:
    if shape is None:
        rows = {each.shape[0] for each in given.values()}
        shape = (BATCH if len(rows) == 1 else array.shape[0], *array.shape[1:])
    fixed = [(own, size) for own, size in zip(shape, array.shape, strict=False) if isinstance(own, int)]
    if len(shape) != array.ndim or any(own != size for own, size in fixed):
        raise UsageError(
            f"dynamic (--dynamic): {name}: expected a name or the size of each dimension of {list(array.shape)}, got "
            f"{','.join(map(str, shape))}"
        )
    return TensorSpec(name, array.dtype.name, tuple(shape))


def _ranges(specs: Sequence[TensorSpec], given: Mapping[str, Array], asked: Mapping[str, Range]) -> dict[str, Range]:
    sizes: dict[str, int] = {}
    for spec in specs:
        for symbol, size in zip(spec.shape, given[spec.name].shape, strict=True):
            if isinstance(symbol, str) and sizes.setdefault(symbol, size) != size:
                raise UsageError(
                    f"inputs: expected one size of {symbol}, got {sizes[symbol]} and {size} ({spec.name}); name the "
                    "dimensions differently with --dynamic, or correct the example"
                )
    own = {name: BATCHES if name == BATCH else Range(1, size, size) for name, size in sizes.items()}
    return {name: asked.get(name, range_) for name, range_ in own.items()}


def _sample(
    config: ModuleConfig, rows: Mapping[str, Array], batch: int, random: np.random.Generator
) -> Mapping[str, Array]:
    """Rows of the example in random order; where it has too few, values within the example's spread."""
    count = _rows(config, rows)
    chosen = random.permutation(count)[:batch] if count >= batch else None
    sizes = {name: range_.opt for name, range_ in config.ranges.items()} | {BATCH: batch}
    return {
        spec.name: rows[spec.name][chosen]
        if chosen is not None and spec.shape[:1] == (BATCH,)
        else _drawn(spec, rows.get(spec.name), sizes, random)
        for spec in config.inputs
    }


def _rows(config: ModuleConfig, rows: Mapping[str, Array]) -> int:
    """Number of rows of the example."""
    counts = (len(rows[spec.name]) for spec in config.inputs if spec.name in rows and spec.shape[:1] == (BATCH,))
    return min(counts, default=0)


def _drawn(spec: TensorSpec, like: Array | None, sizes: Mapping[str, int], random: np.random.Generator) -> Array:
    shape = spec.resolve(sizes)
    if like is not None and BATCH not in spec.shape:
        return like
    if spec.dtype == "bool":
        return random.random(shape) < (1.0 if like is None else float(like.mean()))
    if np.issubdtype(np.dtype(spec.dtype), np.integer):
        low, high = (0, 1) if like is None else (int(like.min()), int(like.max()))
        return random.integers(low, high + 1, shape).astype(spec.dtype)
    mean, std = (0.0, 1.0) if like is None else (float(like.mean()), float(like.std()))
    return (mean + (std or 1.0) * random.standard_normal(shape)).astype(spec.dtype)
