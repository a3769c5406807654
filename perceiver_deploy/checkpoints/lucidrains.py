"""lucidrains/perceiver-pytorch models: the original Perceiver and the package's language model.

The package saves bare state dicts, so a directory needs a config.json written by hand beside the weights:

    {"library": "perceiver-pytorch", "class": "Perceiver", "sizes": [224, 224],
     "arguments": {"num_freq_bands": 6, "depth": 6, "max_freq": 10.0, "num_classes": 1000}}

`arguments` are those the model was constructed with, `sizes` the axes of its input (`Perceiver` alone). Both
layouts of the package's modules are read: that of version 0.9 and later and that before it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from perceiver_deploy.checkpoints.loaded import DEFAULT, LoadedCheckpoint, LoadOptions
from perceiver_deploy.checkpoints.renaming import Rule, rename, transfer, under
from perceiver_deploy.checkpoints.tensors import find_weights, read_json, read_tensors
from perceiver_deploy.models.classic import (
    ClassicConfig,
    ClassicLanguageModel,
    ClassicLanguageModelConfig,
    ClassicPerceiver,
)
from perceiver_deploy.models.config import CrossAttentionConfig, PerceiverConfig, ProcessorConfig
from perceiver_runtime.errors import CheckpointError

Json = Mapping[str, Any]
WIDENING = 4

SHARED: Json = {
    "num_latents": 512,
    "latent_dim": 512,
    "cross_heads": 1,
    "latent_heads": 8,
    "cross_dim_head": 64,
    "latent_dim_head": 64,
    "weight_tie_layers": False,
    "inverted_cross_attn": False,
    "attn_residual": False,
}
CLASSIFIER: Json = {
    **SHARED,
    "input_channels": 3,
    "input_axis": 2,
    "num_classes": 1000,
    "fourier_encode_data": True,
    "self_per_cross_attn": 1,
    "final_classifier_head": True,
}
LANGUAGE: Json = {**SHARED, "decoder_ff": False}
"""What the package's constructors take for arguments that are left out."""


@dataclass(frozen=True)
class Kind:
    """One class of the package: the family it belongs to, its config, its model, and where its tensors go."""

    family: str
    config: Callable[[Json], Any]
    build: Callable[[Any], nn.Module]
    rules: tuple[Rule, ...]
    layers: str


def classifier(record: Json) -> ClassicConfig:
    """`Perceiver`, with its classification head."""
    arguments = {**CLASSIFIER, **record["arguments"]}
    _refuse(arguments, inverted_cross_attn=False, attn_residual=False, final_classifier_head=True)
    sizes = tuple(record["sizes"])
    if len(sizes) != arguments["input_axis"]:
        raise CheckpointError(f"config.json: expected {arguments['input_axis']} sizes (input_axis), got {len(sizes)}")
    return ClassicConfig(
        sizes=sizes,
        channels=arguments["input_channels"],
        bands=arguments["num_freq_bands"] if arguments["fourier_encode_data"] else 0,
        max_frequency=float(arguments["max_freq"]),
        latents=arguments["num_latents"],
        latent_dim=arguments["latent_dim"],
        cross=_cross(arguments, query_residual=True, widening=WIDENING),
        processor=_processor(arguments, arguments["depth"], arguments["self_per_cross_attn"]),
        classes=arguments["num_classes"],
        tied=arguments["weight_tie_layers"],
    )


def language_model(record: Json) -> ClassicLanguageModelConfig:
    """`PerceiverLM`."""
    arguments = {**LANGUAGE, **record["arguments"]}
    _refuse(arguments, inverted_cross_attn=False, attn_residual=False)
    blocks, layers = (arguments["depth"], 1) if arguments["weight_tie_layers"] else (1, arguments["depth"])
    return ClassicLanguageModelConfig(
        vocabulary=arguments["num_tokens"],
        max_length=arguments["max_seq_len"],
        token_dim=arguments["dim"],
        perceiver=PerceiverConfig(
            latents=arguments["num_latents"],
            latent_dim=arguments["latent_dim"],
            encoder=_cross(arguments, query_residual=True, widening=WIDENING),
            processor=_processor(arguments, blocks, layers),
            decoder=_cross(arguments, query_residual=False, widening=WIDENING if arguments["decoder_ff"] else 0),
        ),
    )


def _cross(arguments: Json, *, query_residual: bool, widening: int) -> CrossAttentionConfig:
    width = arguments["cross_heads"] * arguments["cross_dim_head"]
    return CrossAttentionConfig(
        arguments["cross_heads"], width, width, widening, query_residual, gated=True, qkv_bias=False
    )


def _processor(arguments: Json, blocks: int, layers: int) -> ProcessorConfig:
    width = arguments["latent_heads"] * arguments["latent_dim_head"]
    heads = arguments["latent_heads"]
    return ProcessorConfig(blocks, layers, heads, WIDENING, width, width, gated=True, qkv_bias=False)


def _refuse(arguments: Json, **expected: bool) -> None:
    for name, value in expected.items():
        if arguments[name] != value:
            raise CheckpointError(f"config.json: expected {name} {value}, got {arguments[name]!r}; unsupported")


ATTENTION = (("fn.to_q.weight", "attention.query.weight"), ("fn.to_out.{p}", "attention.output.{p}"))
MLP = (
    ("norm.{p}", "mlp_norm.{p}"),
    ("fn.net.0.{p}", "mlp.expand.{p}"),
    ("fn.net.2.{p}", "mlp.contract.{p}"),
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


KINDS: dict[str, Kind] = {
    "Perceiver": Kind(
        "classic-perceiver",
        classifier,
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
    ),
    "PerceiverLM": Kind(
        "classic-language-model",
        language_model,
        ClassicLanguageModel,
        (
            rename("token_emb.weight", "tokens.tokens.weight"),
            rename("pos_emb.weight", "tokens.positions"),
            rename("perceiver_io.latents", "perceiver.latents"),
            *_crossing(
                "perceiver_io.cross_attend_block.cross_attn",
                "perceiver_io.cross_attend_block.cross_ff",
                "perceiver.encoder",
            ),
            *_crossing("perceiver_io.cross_attend_blocks.0", "perceiver_io.cross_attend_blocks.1", "perceiver.encoder"),
            *_self(
                "perceiver_io.layers.{i}.self_attns.0.0",
                "perceiver_io.layers.{i}.self_attns.0.1",
                "perceiver.block.{i}",
            ),
            *_self("perceiver_io.layers.{i}.0", "perceiver_io.layers.{i}.1", "perceiver.block.{i}"),
            *_crossing("perceiver_io.decoder_cross_attn", "perceiver_io.decoder_ff", "perceiver.decoder"),
            rename("perceiver_io.to_logits.{p}", "head.{p}"),
        ),
        layers="perceiver_io.layers",
    ),
}


def recognises(config: Json) -> bool:
    """Whether a config.json was written for this format."""
    return config.get("library") == "perceiver-pytorch"


def load(directory: Path, options: LoadOptions = DEFAULT) -> LoadedCheckpoint:
    """Read a state dict by the config.json beside it.

    Raises CheckpointError if class, arguments or tensors do not fit.
    """
    record = read_json(directory / "config.json")
    kind = KINDS.get(record.get("class", ""))
    if kind is None:
        raise CheckpointError(f"{directory}: expected class {' or '.join(KINDS)}, got {record.get('class')!r}")
    try:
        config = kind.config(record)
    except KeyError as error:
        raise CheckpointError(f"{directory / 'config.json'}: expected {error}, by which the model was made") from error
    module = kind.build(config)
    tensors = read_tensors(find_weights(directory))
    if record["arguments"].get("weight_tie_layers"):
        first = 0 if kind.build is ClassicLanguageModel else 1
        tensors = _untie(tensors, kind.layers, first, str(directory))
    transfer(tensors, kind.rules, module, str(directory))
    return LoadedCheckpoint(module.eval(), kind.family, config)


def _untie(tensors: Mapping[str, Tensor], layers: str, first: int, origin: str) -> dict[str, Tensor]:
    """Leave one of the layers that share weights; a state dict repeats them under every name."""
    kept, differing = {}, []
    for name, tensor in tensors.items():
        index, _, rest = name.removeprefix(f"{layers}.").partition(".")
        if not name.startswith(f"{layers}.") or int(index) <= first:
            kept[name] = tensor
        elif not torch.equal(tensor, tensors.get(f"{layers}.{first}.{rest}", torch.empty(0))):
            differing.append(name)
    if differing:
        raise CheckpointError(f"{origin}: weight_tie_layers is true, and these differ: {', '.join(differing)}")
    return kept
