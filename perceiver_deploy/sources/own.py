"""`load_own`: a module or a blueprint of the user's own, given as an object or made by the user's code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import nn

from perceiver_deploy.checkpoints import LoadOptions
from perceiver_deploy.checkpoints.loaded import HUB_OPTIONS, MODULE_OPTIONS
from perceiver_deploy.families import Family
from perceiver_deploy.sources.code import UserFunction, load_function
from perceiver_deploy.sources.model import Model
from perceiver_deploy.sources.module import Call, ModuleConfig, example_of, family_of
from perceiver_deploy.sources.origin import Origin
from perceiver_exporters.component import Blueprint
from perceiver_exporters.cutting.call import Example
from perceiver_runtime.errors import UsageError
from perceiver_runtime.format.arrays import stored_feeds


def load_own(origin: Origin, options: LoadOptions, example: Example | None) -> Model:
    """The model of an origin that is the user's.

    Args:
        origin: A module, a blueprint, or code that makes one.
        options: `inputs`, `dynamic`, `ranges` and `cut` say how a module is called and cut.
        example: First record of the data, where neither the options nor the code has an example.

    Raises:
        UsageError: The code raises an exception or makes something else, there is no example, or options do not fit.
        CheckError: The module can't be traced.
        CheckpointError: Its weights are not finite numbers in FP32.
    """
    options.refuse(("image_size", *HUB_OPTIONS), f"goes with a checkpoint, got {origin.name}, a module")
    code = load_function(origin.code) if origin.code else None
    made, shown = _made(origin, code)
    if isinstance(made, Blueprint):
        options.refuse(MODULE_OPTIONS, f"goes with a module, got {origin.name}, a blueprint, which is cut already")
        return _of_blueprint(origin, made)
    if isinstance(given := options.inputs, Path):
        given = {name: stored.load() for name, stored in stored_feeds(given, ()).items()}
    if (example := given or shown or example_of(example, made)) is None:
        raise UsageError(
            f"inputs (--inputs): {origin.name}: expected an example of what {type(made).__name__}.forward takes, got "
            "none; give an .npz file of arrays by its parameters' names, or data (--data)"
        )
    call = Call(example, options.dynamic, options.ranges, options.cut)
    entry = f"{code.file.name}:{code.function.__name__}" if code is not None else type(made).__name__
    config = call.config(made, entry, code.sha256 if code is not None else "")
    return own_model(origin, made, config, example)


def _made(origin: Origin, code: UserFunction | None) -> tuple[nn.Module | Blueprint, Example | None]:
    """What the user's code makes, or the module given: with an example, if the code makes that too."""
    made = code.call() if code is not None else origin.module
    example = None
    if isinstance(made, tuple) and len(made) == 2 and isinstance(made[1], Mapping):
        made, example = made
    if not isinstance(made, nn.Module | Blueprint):
        raise UsageError(
            f"{origin.code}: expected a torch.nn.Module, a module and an example of its inputs by name, or a "
            f"Blueprint, got {type(made).__name__}"
        )
    return made, example


def module_of(origin: Origin, code_sha256: str) -> nn.Module:
    """The module of an origin, made by the code with this hash. Raises UsageError."""
    made, _ = _made(origin, load_function(origin.code, code_sha256 or None) if origin.code else None)
    if not isinstance(made, nn.Module):
        raise UsageError(f"{origin.name}: expected a torch.nn.Module, got {type(made).__name__}")
    return made


def own_model(origin: Origin, module: nn.Module, config: ModuleConfig, example: Example | None = None) -> Model:
    """A module of the user's, called and cut as the config says."""
    family, note = family_of(module, config, example)
    notes = (f"{origin.name}: one component: {note}",) if note else ()
    return Model(origin.name, family, config, module, True, notes=notes, origin=origin)


def _of_blueprint(origin: Origin, made: Blueprint) -> Model:
    family = Family(
        made.source.family,
        "a blueprint of the user's own",
        dict,
        build=lambda _: modules,
        cut=lambda _: made.cut,
        sample=lambda *_: made.golden[0],
    )
    modules = nn.ModuleList(component.module for component in made.cut.components)
    return Model(
        made.source.name,
        family,
        made.source.config,
        modules,
        made.source.pretrained,
        labels=made.labels,
        origin=origin,
        processing=made.processing,
        made=made,
    )
