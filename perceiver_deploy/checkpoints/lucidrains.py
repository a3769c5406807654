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

from torch import Tensor, nn

from perceiver_deploy.checkpoints.fields import (
    ANYTHING,
    BANDS,
    FLAG,
    HEADS,
    LAYERS,
    MAX_POINTS,
    OBJECT,
    VOCABULARY,
    WIDTH,
    Field,
    choice,
    few_points,
    listed,
    number,
    read,
    shown,
    whole,
)
from perceiver_deploy.checkpoints.files.json_file import read_json
from perceiver_deploy.checkpoints.files.tensors import Weights, find_weights, read_tensors
from perceiver_deploy.checkpoints.filling import filled
from perceiver_deploy.checkpoints.loaded import DEFAULT, LoadedCheckpoint, LoadOptions
from perceiver_deploy.checkpoints.renaming import Rule, rename, under
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

NO, YES = Field(choice(False), False), Field(choice(True), True)
FREE = Field(ANYTHING, None)
"""Arguments that change nothing at inference."""

SHARED: Mapping[str, Field] = {
    "depth": Field(LAYERS),
    "num_latents": Field(WIDTH, 512),
    "latent_dim": Field(WIDTH, 512),
    "cross_heads": Field(HEADS, 1),
    "latent_heads": Field(HEADS, 8),
    "cross_dim_head": Field(WIDTH, 64),
    "latent_dim_head": Field(WIDTH, 64),
    "weight_tie_layers": Field(FLAG, False),
    "inverted_cross_attn": NO,
    "attn_residual": NO,
    "attn_residual_rank": FREE,
    "attn_dropout": FREE,
    "ff_dropout": FREE,
    "seq_dropout_prob": FREE,
}
CLASSIFIER: Mapping[str, Field] = {
    **SHARED,
    "num_freq_bands": Field(BANDS),
    "max_freq": Field(number(1e-6, 1e9)),
    "input_channels": Field(WIDTH, 3),
    "input_axis": Field(whole(1, 4), 2),
    "num_classes": Field(WIDTH, 1000),
    "fourier_encode_data": Field(FLAG, True),
    "self_per_cross_attn": Field(LAYERS, 1),
    "final_classifier_head": YES,
}
LANGUAGE: Mapping[str, Field] = {
    **SHARED,
    "num_tokens": Field(VOCABULARY),
    "max_seq_len": Field(whole(1, MAX_POINTS)),
    "dim": Field(WIDTH),
    "decoder_ff": Field(FLAG, False),
}
"""What the arguments of the package's constructors must be, and what they are where they are left out."""


@dataclass(frozen=True)
class Kind:
    """One class of the package.

    `arguments` are the conditions on its constructor's arguments.
    """

    family: str
    arguments: Mapping[str, Field]
    config: Callable[[Json, tuple[int, ...]], Any]
    build: Callable[[Any], nn.Module]
    rules: tuple[Rule, ...]
    layers: str


def classifier(arguments: Json, sizes: tuple[int, ...]) -> ClassicConfig:
    """`Perceiver`, with its classification head."""
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


def language_model(arguments: Json, sizes: tuple[int, ...]) -> ClassicLanguageModelConfig:
    """`PerceiverLM`, which takes texts of any length."""
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
        CLASSIFIER,
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
        LANGUAGE,
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


RECORD: Mapping[str, Field] = {
    "class": Field(choice(*KINDS)),
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
    config = kind.config(arguments, tuple(record["sizes"]))
    weights = read_tensors(find_weights(directory))
    if arguments["weight_tie_layers"]:
        weights = _untie(weights, kind.layers, 0 if kind.build is ClassicLanguageModel else 1)
    module = filled(kind.build, config, weights, kind.rules, str(path))
    return LoadedCheckpoint(module, kind.family, config)


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
