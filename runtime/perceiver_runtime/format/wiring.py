"""Check a pipeline against its components when a bundle is loaded: names, types, shapes, stages.

A component's symbolic dimensions are local to it; a step binds them to the dimensions of the values it reads. The spec
of every value thus follows from the session inputs, and an execution plan can allocate all buffers from their sizes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from perceiver_runtime.errors import BundleError
from perceiver_runtime.manifest import ComponentEntry, Manifest
from perceiver_runtime.pipeline import Chunk, Generation, Pipeline, Step
from perceiver_runtime.tensors import Dimension, TensorSpec

INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
DTYPES = frozenset(("bool", *INTEGERS, "float16", "float32", "float64"))
MAX_MAGNITUDE = 1 << 64
"""Magnitude of any bound on values."""
MAX_REPEAT = 10_000
"""Runs of one block: each is a call laid out in memory."""


def check_wiring(manifest: Manifest) -> None:
    """Raise BundleError, naming the step or component, for the first inconsistency."""
    _check_components(manifest.components)
    values = value_specs(manifest)
    _check_stages(manifest.pipeline)
    _check_outputs(manifest.pipeline, values)
    for generation in manifest.pipeline.generations:
        _check_generation(generation, manifest.pipeline, values)
    _check_defaults(manifest.pipeline)
    _check_profiles(manifest)


def value_specs(manifest: Manifest) -> dict[str, TensorSpec]:
    """Spec of every value of the pipeline, in the symbols of the session inputs, with the ranges of its readers."""
    components = {entry.name: entry for entry in manifest.components}
    values = {spec.name: spec for spec in manifest.pipeline.inputs}
    _require_unique((spec.name for spec in manifest.pipeline.inputs), "pipeline input")
    _require_dtypes(manifest.pipeline.inputs, "pipeline")
    for index, step in enumerate(manifest.pipeline.steps):
        where = f"step {index} ({step.component})"
        if step.component not in components:
            raise BundleError(f"{where}: no such component; the bundle holds {', '.join(components)}")
        for spec in _apply(step, components[step.component], values, where):
            if values.setdefault(spec.name, spec) != spec:
                raise BundleError(f"{where}: writes {spec}; an earlier value is {values[spec.name]}")
    for step in manifest.pipeline.steps:
        for spec in components[step.component].inputs:
            value = step.inputs[spec.name]
            values[value] = values[value].within(spec.range)
    return values


def bind_symbols(
    specs: Iterable[TensorSpec], shapes: Mapping[str, tuple[Dimension, ...]], where: str
) -> dict[str, Dimension]:
    """Sizes of a component's symbols when its inputs have these shapes. Raises BundleError if the shapes do not fit."""
    symbols: dict[str, Dimension] = {}
    for spec in specs:
        shape = shapes[spec.name]
        if len(shape) != spec.rank:
            raise BundleError(f"{where}: graph input {spec} gets a value of shape {list(shape)}")
        for own, given in zip(spec.shape, shape, strict=True):
            expected = own if isinstance(own, int) else symbols.setdefault(own, given)
            if expected != given:
                raise BundleError(f"{where}: graph input {spec}: {own} is {expected}, but the value has {given}")
    return symbols


def _apply(
    step: Step, component: ComponentEntry, values: Mapping[str, TensorSpec], where: str
) -> tuple[TensorSpec, ...]:
    """The values that a step writes."""
    inputs = {spec.name: spec for spec in component.inputs}
    outputs = {spec.name: spec for spec in component.outputs}
    _require_names(step.inputs, inputs, f"{where}: graph input", every=True)
    _require_names(step.outputs, outputs, f"{where}: graph output", every=False)
    if unmade := sorted(set(step.inputs.values()) - set(values)):
        raise BundleError(f"{where}: reads {', '.join(unmade)}, which no input gives and no earlier step makes")
    for name, value in step.inputs.items():
        if inputs[name].dtype != values[value].dtype:
            raise BundleError(f"{where}: graph input {inputs[name]} gets value {values[value]}")
    symbols = bind_symbols(component.inputs, {n: values[v].shape for n, v in step.inputs.items()}, where)
    _check_loop(step, component, inputs, outputs, where)
    resolved = {n: tuple(d if isinstance(d, int) else symbols[d] for d in outputs[n].shape) for n in outputs}
    for output, target in step.carry.items():
        carried, received = outputs[output], values[step.inputs[target]]
        if (carried.dtype, resolved[output]) != (received.dtype, received.shape):
            raise BundleError(f"{where}: carries {carried} into graph input {inputs[target]}: unequal shape or type")
    return tuple(TensorSpec(value, outputs[name].dtype, resolved[name]) for name, value in step.outputs.items())


def _check_loop(
    step: Step,
    component: ComponentEntry,
    inputs: Mapping[str, TensorSpec],
    outputs: Mapping[str, TensorSpec],
    where: str,
) -> None:
    _require_names(step.carry, outputs, f"{where}: carried graph output", every=False)
    _require_names(dict.fromkeys(step.carry.values(), ""), inputs, f"{where}: carry's graph input", every=False)
    _require_unique(step.carry.values(), f"{where}: carry's graph input")
    if not 1 <= step.repeat <= MAX_REPEAT or (step.repeat > 1 and (step.chunk or not step.carry)):
        raise BundleError(
            f"{where}: repeat {step.repeat}; expected 1 to {MAX_REPEAT}, with a carry and without a chunk"
        )
    if step.chunk:
        carried = [*(outputs[n] for n in step.carry), *(inputs[n] for n in step.carry.values())]
        _check_chunk(step.chunk, component, carried, where)


def _check_chunk(chunk: Chunk, component: ComponentEntry, carried: list[TensorSpec], where: str) -> None:
    if chunk.size < 1 or not any(chunk.dimension in spec.shape for spec in component.inputs):
        raise BundleError(f"{where}: chunk of {chunk.size} along {chunk.dimension!r}, which no graph input has")
    for spec in (*component.inputs, *component.outputs):
        if spec.shape.count(chunk.dimension) > 1:
            raise BundleError(f"{where}: {spec} has the chunk dimension twice")
    for spec in component.outputs if chunk.only_first else ():
        if chunk.dimension in spec.shape:
            raise BundleError(f"{where}: only the first chunk is run, but {spec} has the chunk dimension")
    for spec in carried:
        if chunk.dimension in spec.shape:
            raise BundleError(f"{where}: carried {spec} has the chunk dimension {chunk.dimension}")


def _check_components(components: tuple[ComponentEntry, ...]) -> None:
    _require_unique((entry.name for entry in components), "component")
    for entry in components:
        _require_unique((spec.name for spec in entry.inputs), f"{entry.name}: graph input")
        _require_unique((spec.name for spec in entry.outputs), f"{entry.name}: graph output")
        _require_dtypes((*entry.inputs, *entry.outputs), entry.name)
        known = {symbol for spec in entry.inputs for symbol in spec.symbols}
        for spec in entry.outputs:
            if unknown := sorted(set(spec.symbols) - known):
                raise BundleError(f"{entry.name}: output {spec}: no input has the dimension {', '.join(unknown)}")


def _check_stages(pipeline: Pipeline) -> None:
    """Encoding comes first and alone: its values must mean the same before, during and after decoding."""
    stages = [step.stage for step in pipeline.steps]
    if stages != sorted(stages, key=("encode", "decode").index):
        raise BundleError("pipeline: an encode step follows a decode step")
    encoded = set(pipeline.encoded)
    for step in pipeline.steps:
        if step.stage == "decode" and (written := sorted(encoded & set(step.outputs.values()))):
            raise BundleError(f"pipeline: decode step {step.component} overwrites encoded {', '.join(written)}")


def _check_outputs(pipeline: Pipeline, values: Mapping[str, TensorSpec]) -> None:
    made = {value for step in pipeline.steps for value in step.outputs.values()}
    _require_unique((spec.name for spec in pipeline.outputs), "pipeline output")
    for spec in pipeline.outputs:
        value = pipeline.shown[spec.name]
        if value not in made:
            raise BundleError(f"pipeline: output {spec.name} is made by no step")
        if value != spec.name and spec.name in made:
            raise BundleError(f"pipeline: output {spec.name} shows {value}, but another value has its name")
        if (values[value].dtype, values[value].shape) != (spec.dtype, spec.shape):
            raise BundleError(f"pipeline: output declared as {spec}, but the steps make {values[value]}")
    _require_unique((pipeline.shown[spec.name] for spec in pipeline.outputs), "pipeline: value behind an output")
    if unknown := sorted(set(pipeline.aliases) - {spec.name for spec in pipeline.outputs}):
        raise BundleError(f"pipeline: alias of {', '.join(unknown)}, which is no output")


def _check_generation(generation: Generation, pipeline: Pipeline, values: Mapping[str, TensorSpec]) -> None:
    """Its one decode step reads the token and makes the scores; the token left out is the one that starts."""
    where = f"generation {generation.name}"
    steps = [step for step in pipeline.steps if step.component == generation.component]
    if len(steps) != 1 or steps[0].stage != "decode" or steps[0].repeat != 1 or steps[0].chunk:
        raise BundleError(f"{where}: expected one decode step without repeat or chunk that runs {generation.component}")
    token, scores = values.get(generation.token), values.get(generation.scores)
    if token is None or generation.token not in steps[0].inputs.values() or (token.dtype, token.rank) != ("int64", 1):
        raise BundleError(f"{where}: its step reads no token {generation.token}: int64[batch]")
    if scores is None or generation.scores not in steps[0].outputs.values() or scores.rank != 2:
        raise BundleError(f"{where}: its step makes no scores {generation.scores}: float[batch, vocabulary]")
    if generation.length < 1 or pipeline.defaults.get(generation.token) != generation.start:
        raise BundleError(f"{where}: expected a length of at least 1, and {generation.start} as its token's default")


def _check_defaults(pipeline: Pipeline) -> None:
    if unknown := sorted(set(pipeline.defaults) - {spec.name for spec in pipeline.inputs}):
        raise BundleError(f"pipeline: default for {', '.join(unknown)}, which is no input")


def _check_profiles(manifest: Manifest) -> None:
    symbols = {symbol for spec in manifest.pipeline.inputs for symbol in spec.symbols}
    if symbols and not manifest.profiles:
        raise BundleError(f"manifest: no profile gives the range of {', '.join(sorted(symbols))}")
    for profile in manifest.profiles:
        if missing := sorted(symbols - set(profile.dimensions)):
            raise BundleError(f"profile {profile.name}: no range for {', '.join(missing)}")
        for symbol, size in profile.dimensions.items():
            if not 1 <= size.min <= size.opt <= size.max:
                raise BundleError(f"profile {profile.name}: {symbol}: expected 1 <= min <= opt <= max, got {size}")


def _require_names(given: Mapping[str, str], known: Mapping[str, TensorSpec], what: str, *, every: bool) -> None:
    if unknown := sorted(set(given) - set(known)):
        raise BundleError(f"{what} {', '.join(unknown)} unknown; the component has {', '.join(known) or 'none'}")
    if every and (missing := sorted(set(known) - set(given))):
        raise BundleError(f"{what} {', '.join(missing)} is fed by no value")


def _require_unique(names: Iterable[str], what: str) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise BundleError(f"{what} {name} occurs twice")
        seen.add(name)


def _require_dtypes(specs: Iterable[TensorSpec], where: str) -> None:
    for spec in specs:
        if spec.dtype not in DTYPES:
            raise BundleError(f"{where}: {spec}: expected one of {', '.join(sorted(DTYPES))}")
        if any(isinstance(d, int) and d < 0 for d in spec.shape):
            raise BundleError(f"{where}: {spec}: a negative dimension")
        if spec.range is not None and not -MAX_MAGNITUDE <= spec.range.min <= spec.range.max <= MAX_MAGNITUDE:
            raise BundleError(f"{where}: {spec}: no range of values, {spec.range.min} to {spec.range.max}")
