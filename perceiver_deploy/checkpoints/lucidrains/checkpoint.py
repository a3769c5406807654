"""lucidrains/perceiver-pytorch models: the original Perceiver, its Perceiver IO and its language model.

The package saves bare state dicts, so a directory needs a config.json written by hand beside the weights:

    {"library": "perceiver-pytorch", "version": "0.11.0", "class": "Perceiver", "sizes": [224, 224],
     "arguments": {"num_freq_bands": 6, "depth": 6, "max_freq": 10.0, "num_classes": 1000}}

`arguments` are those the model was constructed with, `sizes` the axes of its input (`Perceiver` alone), `version` is
the release of the package, which a `Perceiver` of 0.7 needs (see the module `version`). All layouts of the package's
modules are read: those of 0.7, of 0.8, and of 0.9 and later.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from perceiver_deploy.checkpoints.fields import (
    MAX_POINTS,
    OBJECT,
    Field,
    choice,
    few_points,
    listed,
    optional,
    read,
    shown,
    whole,
)
from perceiver_deploy.checkpoints.files.json_file import read_json
from perceiver_deploy.checkpoints.files.tensors import Weights, find_weights, read_tensors
from perceiver_deploy.checkpoints.filling import filled
from perceiver_deploy.checkpoints.loaded import DEFAULT, LoadedCheckpoint, LoadOptions
from perceiver_deploy.checkpoints.lucidrains import config
from perceiver_deploy.checkpoints.lucidrains.version import VERSION, read_version, spacing
from perceiver_deploy.checkpoints.renaming import Rule, rename, under
from perceiver_deploy.models.classic import ClassicConfig, ClassicIO, ClassicLanguageModel, ClassicPerceiver
from perceiver_runtime.errors import CheckpointError

Json = Mapping[str, Any]


@dataclass(frozen=True)
class Kind:
    """One class of the package.

    Attributes:
        family: Family of the reference model.
        arguments: Conditions on its constructor's arguments.
        config: The family's config, from arguments and sizes.
        build: The reference model.
        rules: Renaming of its tensors.
        layers: Where the layers are that weight_tie_layers ties.
        own: How many of them have their own weights then.
    """

    family: str
    arguments: Mapping[str, Field]
    config: Callable[[Json, tuple[int, ...]], Any]
    build: Callable[[Any], nn.Module]
    rules: tuple[Rule, ...]
    layers: str
    own: int = 0


ATTENTION = (
    ("fn.to_q.weight", "attention.query.weight"),
    ("fn.to_out.{p}", "attention.output.{p}"),
    ("fn.to_out.0.{p}", "attention.output.{p}"),  # 0.7
)
MLP = (
    ("norm.{p}", "mlp_norm.{p}"),
    ("fn.net.0.{p}", "mlp.expand.{p}"),
    ("fn.net.2.{p}", "mlp.contract.{p}"),
    ("fn.net.3.{p}", "mlp.contract.{p}"),  # 0.7
)


def _attention(source: str, target: str, norms: Mapping[str, str]) -> tuple[Rule, ...]:
    split = rename(f"{source}.fn.to_kv.weight", f"{target}.attention.key.weight", f"{target}.attention.value.weight")
    named = tuple((f"{theirs}.{{p}}", f"{ours}.{{p}}") for theirs, ours in norms.items())
    return (split, *under(source, target, (*ATTENTION, *named)))


def _crossing(attention: str, feed_forward: str, target: str) -> tuple[Rule, ...]:
    norms = {"norm": "query_norm", "norm_context": "input_norm"}
    return (*_attention(attention, target, norms), *under(feed_forward, target, MLP))


def _self(attention: str, feed_forward: str, target: str) -> tuple[Rule, ...]:
    return (*_attention(attention, target, {"norm": "norm"}), *under(feed_forward, target, MLP))


def _io(prefix: str) -> tuple[Rule, ...]:
    """A `PerceiverIO`, whose tensors have names that begin with `prefix`."""
    return (
        rename(f"{prefix}latents", "perceiver.latents"),
        *_crossing(
            f"{prefix}cross_attend_block.cross_attn", f"{prefix}cross_attend_block.cross_ff", "perceiver.encoder"
        ),
        *_crossing(f"{prefix}cross_attend_blocks.0", f"{prefix}cross_attend_blocks.1", "perceiver.encoder"),
        *_self(f"{prefix}layers.{{i}}.self_attns.0.0", f"{prefix}layers.{{i}}.self_attns.0.1", "perceiver.block.{i}"),
        *_self(f"{prefix}layers.{{i}}.0", f"{prefix}layers.{{i}}.1", "perceiver.block.{i}"),
        *_crossing(f"{prefix}decoder_cross_attn", f"{prefix}decoder_ff", "perceiver.decoder"),
        rename(f"{prefix}to_logits.{{p}}", "head.{p}"),
    )


KINDS: dict[str, Kind] = {
    "Perceiver": Kind(
        "classic-perceiver",
        config.CLASSIFIER,
        config.classifier,
        ClassicPerceiver,
        (
            rename("latents", "latents"),
            *_crossing("layers.{i}.cross_attn", "layers.{i}.cross_ff", "stages.{i}.cross"),
            *_self("layers.{i}.self_attns.{j}.0", "layers.{i}.self_attns.{j}.1", "stages.{i}.block.{j}"),
            *_crossing("layers.{i}.0", "layers.{i}.1", "stages.{i}.cross"),
            *_self("layers.{i}.2.{j}.0", "layers.{i}.2.{j}.1", "stages.{i}.block.{j}"),
            rename("to_logits.1.{p}", "norm.{p}"),
            rename("to_logits.2.{p}", "head.{p}"),
        ),
        layers="layers",
        own=1,
    ),
    "PerceiverIO": Kind("classic-perceiver-io", config.IO, config.perceiver_io, ClassicIO, _io(""), layers="layers"),
    "PerceiverLM": Kind(
        "classic-language-model",
        config.LANGUAGE,
        config.language_model,
        ClassicLanguageModel,
        (
            rename("token_emb.weight", "tokens.tokens.weight"),
            rename("pos_emb.weight", "tokens.positions"),
            *_io("perceiver_io."),
        ),
        layers="perceiver_io.layers",
    ),
}


RECORD: Mapping[str, Field] = {
    "class": Field(choice(*KINDS)),
    "version": Field(optional(VERSION), None),
    "arguments": Field(OBJECT),
    "sizes": Field(listed(whole(1, MAX_POINTS), range(0, 5)), []),
}


def recognises(config: Json) -> bool:
    """Whether a config.json was written for this format."""
    return config.get("library") == "perceiver-pytorch"


def load(directory: Path, options: LoadOptions = DEFAULT) -> LoadedCheckpoint:
    """Read a state dict with the config.json in its directory.

    Raises:
        CheckpointError: Class, arguments or tensors do not fit.
    """
    path = directory / "config.json"
    record = read(read_json(path), RECORD, str(path))
    options.refuse(("image_size",), f"`sizes` in {path} are those of the model's inputs")
    few_points(str(path), "sizes", record["sizes"])
    kind = KINDS[record["class"]]
    if unknown := sorted(set(record["arguments"]) - set(kind.arguments)):
        raise CheckpointError(
            f"{path}: arguments: expected those of {record['class']} ({', '.join(kind.arguments)}), got "
            f"{', '.join(map(shown, unknown))}"
        )
    arguments = read(record["arguments"], kind.arguments, f"{path}: arguments, by which the model was made")
    settings = kind.config(arguments, tuple(record["sizes"]))
    weights = read_tensors(find_weights(directory))
    if record["version"] is not None:
        read_version(record["version"], str(path))
    if isinstance(settings, ClassicConfig) and settings.bands:
        settings = replace(settings, spaced=spacing(record["version"], weights.tensors, str(path)))
    if arguments["weight_tie_layers"]:
        weights = _untie(weights, kind.layers, kind.own)
    module = filled(kind.build, settings, weights, kind.rules, str(path))
    return LoadedCheckpoint(module, kind.family, settings)


def _untie(weights: Weights, layers: str, first: int) -> Weights:
    """Keep one copy of layers that share weights; a state dict repeats them under every name."""
    kept, differing = {}, []
    for name, tensor in weights.tensors.items():
        index, _, rest = name.removeprefix(f"{layers}.").partition(".")
        shared = name.startswith(f"{layers}.") and index.isdecimal() and int(index) > first
        if not shared:
            kept[name] = name
        elif not _same(tensor, weights.tensors.get(f"{layers}.{first}.{rest}")):
            differing.append(name)
    if differing:
        raise CheckpointError(f"{weights.origin}: weight_tie_layers is true, and these differ: {', '.join(differing)}")
    return weights.named(kept)


def _same(tensor: Tensor, other: Tensor | None) -> bool:
    """Whether two tensors are equal; values are compared only if the shapes are."""
    return other is not None and tensor.shape == other.shape and tensor.dtype == other.dtype and tensor.equal(other)
