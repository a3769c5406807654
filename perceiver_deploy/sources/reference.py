"""`reference_of`: the model that a bundle was made from, found on this machine and checked by its weights' hash."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from torch import nn

from perceiver_deploy.checkpoints import LoadOptions
from perceiver_deploy.checkpoints.native import check_numbers
from perceiver_deploy.sources.folding import folded_as
from perceiver_deploy.sources.model import Model
from perceiver_deploy.sources.module import FAMILY, ModuleConfig
from perceiver_deploy.sources.origin import Origin, find
from perceiver_deploy.sources.own import module_of, own_model
from perceiver_deploy.sources.source import load
from perceiver_deploy.sources.source_record import read_record
from perceiver_deploy.zoo import zoo
from perceiver_exporters.weights import weights_sha256
from perceiver_runtime.bundle import Bundle
from perceiver_runtime.errors import PerceiverError, UsageError
from perceiver_runtime.format.schema import decode, encode
from perceiver_runtime.manifest import Source


def reference_of(bundle: Bundle, name: str | nn.Module | None = None) -> Model:
    """The model that a bundle was made from. A hub id is looked for in the local cache alone.

    Args:
        bundle: The bundle.
        name: Model of the zoo, checkpoint, code (`my_model.py:make`) or module to take; None: where the export found
            it, or else by its name. Code runs only if it is named, and is what the bundle was made with.

    Returns:
        The model, in the sizes that the bundle was exported with.

    Raises:
        UsageError: No model that was found has the bundle's weights; for a given `name`, what `resolve` raises.
    """
    source = bundle.manifest.source
    tried: list[str] = []
    for origin, options in _candidates(bundle, name, tried):
        try:
            model = _loaded(origin, options, source)
        except PerceiverError as error:
            if name is not None:
                raise
            tried.append(str(error))
            continue
        got = weights_sha256(model.module)
        if got == source.weights_sha256:
            return folded_as(_as_exported(model, source), bundle.manifest)
        tried.append(f"{origin.directory or origin.name} has {got[:12]}")
    if source.family == FAMILY and name is None:
        entry = decode(ModuleConfig, source.config, "manifest.source.config").entry
        place = next((each.removeprefix(CODE) for each in tried if each.startswith(CODE)), entry)
        raise UsageError(
            f"reference: {source.name} is a module of the user's own ({entry}), whose code runs only where it is "
            f"named; name it: --reference {place}"
        )
    raise UsageError(
        f"reference: expected the weights of the bundle ({source.name}, {source.weights_sha256[:12]}), got none: "
        f"{'; '.join(dict.fromkeys(tried))}; name the right checkpoint with --reference"
    )


CODE = "code runs only where it is named: "


def _loaded(origin: Origin, options: LoadOptions, source: Source) -> Model:
    """The model of an origin; a module of the user's is called and cut as the bundle says."""
    if not origin.users:
        return load(origin, replace(options, local_files_only=origin.on_hub))
    if source.family != FAMILY:
        return load(origin, options)
    config = decode(ModuleConfig, source.config, "manifest.source.config")
    return own_model(origin, module_of(origin, config.code_sha256), config)


def _candidates(bundle: Bundle, name: str | nn.Module | None, tried: list[str]) -> Iterator[tuple[Origin, LoadOptions]]:
    """Where the model may be, the likeliest first; what is none is noted in `tried`."""
    if name is not None:
        yield find(name), LoadOptions()
        return
    source = bundle.manifest.source
    try:
        record = read_record(bundle.path)
    except PerceiverError as error:
        record = None
        tried.append(str(error))
    if record is not None and record.weights_sha256 == source.weights_sha256:
        cache = None if record.cache_dir is None else Path(record.cache_dir)
        yield from _found(record.source, LoadOptions(revision=record.revision, cache_dir=cache), tried)
    if (entry := zoo().get(source.name)) is not None:
        yield Origin(entry.name, entry=entry), LoadOptions()
    yield from _found(source.name, LoadOptions(), tried)


def _found(name: str, options: LoadOptions, tried: list[str]) -> Iterator[tuple[Origin, LoadOptions]]:
    try:
        origin = find(name)
    except PerceiverError as error:
        tried.append(str(error))
        return
    if origin.users:
        tried.append(f"{CODE}{name}")
    elif origin.entry is None:
        yield origin, options


def _as_exported(model: Model, source: Source) -> Model:
    """The same weights in the sizes of the bundle: weights do not depend on the size of images."""
    if encode(model.config) == source.config:
        return model
    config = decode(model.family.config, source.config, "manifest.source.config")
    check_numbers(config, "manifest.source.config")
    module = model.family.build(config)
    module.load_state_dict(model.module.state_dict())
    return replace(model, config=config, module=module.eval())
