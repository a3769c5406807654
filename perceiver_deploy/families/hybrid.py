"""Hybrid models: an encoder per modality, their interaction, latents, processor, and heads.

Session inputs are `pixel_values` and `input_ids`; outputs are named after heads. A generator named `name` reads
`name_token` (the previous id; the start id if left out) and outputs `name_log_probs`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import Tensor, nn

from perceiver_deploy.families.family import Family
from perceiver_deploy.models.hybrid import GeneratorConfig, Hybrid, HybridConfig
from perceiver_deploy.models.hybrid.config import ImageConfig
from perceiver_deploy.models.hybrid.decoder import RecurrentDecoder
from perceiver_deploy.models.hybrid.encoders import MISSING_PIXEL
from perceiver_deploy.models.hybrid.interaction import Features
from perceiver_deploy.models.hybrid.model import Trunk
from perceiver_deploy.models.hybrid.recurrent_encoder import PADDING
from perceiver_exporters.component import Component, Cut
from perceiver_runtime.pipeline import Generation, Pipeline, Step
from perceiver_runtime.tensors import Array, Profile, Range, TensorSpec


class Encoder(nn.Module):
    """Features (and masks) of each modality, in order, to latents (B, N, D)."""

    def __init__(self, trunk: Trunk, masked: tuple[bool, ...]) -> None:
        super().__init__()
        self.trunk, self.masked = trunk, masked

    def forward(
        self, first: Tensor, second: Tensor | None = None, third: Tensor | None = None, fourth: Tensor | None = None
    ) -> Tensor:
        """Interaction and cross-attention; a modality's mask follows its features if it has one."""
        given = (tensor for tensor in (first, second, third, fourth) if tensor is not None)
        return self.trunk.encode([Features(next(given), next(given) if mask else None) for mask in self.masked])


class Begin(nn.Module):
    """Latents (B, N, D) to a decoder's initial state, each tensor (B, layers, hidden)."""

    def __init__(self, decoder: RecurrentDecoder) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, latents: Tensor) -> tuple[Tensor, ...]:
        """The state: h and c, or h alone."""
        return self.decoder.begin(latents)


class DecoderStep(nn.Module):
    """An id (B,) and the state to log-probabilities (B, vocabulary) of the next id and the next state."""

    def __init__(self, decoder: RecurrentDecoder) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, token: Tensor, h: Tensor, c: Tensor | None = None) -> tuple[Tensor, ...]:
        """One position."""
        log_probs, after = self.decoder.step(token, (h,) if c is None else (h, c))
        return log_probs, *after


ComponentStep = tuple[Component, Step]


def cut(model: Hybrid) -> Cut:
    """One component per modality, one for their interaction, the shared block, and one or two per head."""
    config = model.config
    latents = TensorSpec("latents", "float32", ("batch", config.perceiver.latents, config.perceiver.latent_dim))
    encoders = _encoders(model)
    parts = [*encoders, _interaction(model, encoders, latents), _processor(model, latents)]
    widths = {h.name: h.classes for h in config.classifiers} | {h.name: h.targets for h in config.regressors}
    outputs = [TensorSpec(name, "float32", ("batch", width)) for name, width in widths.items()]
    parts += [_part(f"{spec.name}_head", model.heads[spec.name], (latents,), (spec,), "decode") for spec in outputs]
    for head in config.generators:
        parts += _generator(head, model.generator(head.name), latents)
        outputs.append(TensorSpec(f"{head.name}_log_probs", "float32", ("batch", head.vocabulary)))
    tokens = [TensorSpec(f"{head.name}_token", "int64", ("batch",)) for head in config.generators]
    inputs = tuple(spec for component, _ in encoders for spec in component.inputs)
    pipeline = Pipeline(
        inputs=(*inputs, *tokens),
        outputs=tuple(outputs),
        steps=tuple(step for _, step in parts),
        defaults=_defaults(config),
        generations=tuple(map(_generation, config.generators)),
    )
    return Cut(tuple(component for component, _ in parts), pipeline, _profile(config))


def _part(
    name: str, module: nn.Module, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...], stage: str
) -> ComponentStep:
    """A component whose graph inputs and outputs are values of the same names."""
    step = Step(name, {s.name: s.name for s in inputs}, {s.name: s.name for s in outputs}, stage)  # type: ignore[arg-type]
    return Component(name, module, inputs, outputs), step


def _encoders(model: Hybrid) -> list[ComponentStep]:
    config, trunk, parts = model.config, model.trunk, []
    if config.image is not None and trunk.image is not None:
        pixels = TensorSpec("pixel_values", "float32", _pixel_shape(config.image))
        shape = ("batch", config.image.tokens)
        made = (TensorSpec("image_features", "float32", (*shape, trunk.image.dim)),)
        masks = (TensorSpec("image_mask", "bool", shape),) if "image" in config.optional else ()
        parts.append(_part("image_encoder", trunk.image, (pixels,), (*made, *masks), "encode"))
    if config.text is not None and trunk.text is not None:
        text = ("batch", "length" if config.dynamic_length else config.text.length)
        made = (TensorSpec("text_features", "float32", (*text, trunk.text.dim)),)
        masks = (TensorSpec("text_mask", "bool", text),)
        ids = TensorSpec("input_ids", "int64", text)
        parts.append(_part("text_encoder", trunk.text, (ids,), (*made, *masks), "encode"))
    return parts


def _interaction(model: Hybrid, encoders: list[ComponentStep], latents: TensorSpec) -> ComponentStep:
    masked = tuple(len(component.outputs) > 1 for component, _ in encoders)
    features = tuple(spec for component, _ in encoders for spec in component.outputs)
    return _part("encoder", Encoder(model.trunk, masked), features, (latents,), "encode")


def _processor(model: Hybrid, latents: TensorSpec) -> ComponentStep:
    refined = TensorSpec("latents_out", latents.dtype, latents.shape)
    step = Step(
        "processor_block",
        {"latents": "latents"},
        {"latents_out": "latents"},
        "encode",
        repeat=model.config.perceiver.processor.blocks,
        carry={"latents_out": "latents"},
    )
    return Component("processor_block", model.trunk.block, (latents,), (refined,)), step


def _generator(head: GeneratorConfig, decoder: RecurrentDecoder, latents: TensorSpec) -> list[ComponentStep]:
    """The pipeline runs the step once, for the id after `token`; the runtime loops it (see `Generation`)."""
    name, shape = head.name, ("batch", head.layers, head.hidden)
    state = {part: f"{name}_{part}" for part in ("h", "c")[: decoder.states]}
    begun = tuple(TensorSpec(value, "float32", shape) for value in state.values())
    inputs = (TensorSpec("token", "int64", ("batch",)), *(TensorSpec(part, "float32", shape) for part in state))
    scores = TensorSpec("log_probs", "float32", ("batch", head.vocabulary))
    outputs = (scores, *(TensorSpec(f"{part}_next", "float32", shape) for part in state))
    step = Step(
        f"{name}_step",
        {"token": f"{name}_token", **state},
        {"log_probs": f"{name}_log_probs", **{f"{part}_next": f"{value}_next" for part, value in state.items()}},
        "decode",
        carry={f"{part}_next": part for part in state},
    )
    component = Component(f"{name}_step", DecoderStep(decoder), inputs, outputs)
    return [_part(f"{name}_begin", Begin(decoder), (latents,), begun, "decode"), (component, step)]


def _generation(head: GeneratorConfig) -> Generation:
    name = head.name
    return Generation(name, f"{name}_step", f"{name}_token", f"{name}_log_probs", head.start, head.stop, head.length)


def _defaults(config: HybridConfig) -> dict[str, float]:
    """Optional inputs: modalities that may be missing, and the token that starts a sequence."""
    fills = {"image": ("pixel_values", MISSING_PIXEL), "text": ("input_ids", float(PADDING))}
    missing = dict(fills[modality] for modality in config.optional)
    return missing | {f"{head.name}_token": float(head.start) for head in config.generators}


def _pixel_shape(config: ImageConfig) -> tuple[int | str, ...]:
    return ("batch", config.channels, config.height, config.width)


def _profile(config: HybridConfig) -> Profile:
    dimensions = {"batch": Range(1, 1, 64)}
    if config.text is not None and config.dynamic_length:
        dimensions["length"] = Range(1, config.text.length, config.text.length)
    return Profile("default", dimensions)


def sample(config: HybridConfig, batch: int, random: np.random.Generator) -> Mapping[str, Array]:
    """Uniform pixels and ids; texts end at random places."""
    feeds: dict[str, Array] = {}
    if config.image is not None:
        shape = (batch, config.image.channels, config.image.height, config.image.width)
        feeds["pixel_values"] = random.random(shape, dtype=np.float32)
    if config.text is not None:
        length = config.text.length
        ends = random.integers(1, length + 1, (batch, 1))
        ids = random.integers(1, config.text.vocabulary, (batch, length))
        feeds["input_ids"] = np.where(np.arange(length) < ends, ids, PADDING)
    for head in config.generators:
        feeds[f"{head.name}_token"] = np.full((batch,), head.start, np.int64)
    return feeds


HYBRID = Family(
    name="hybrid",
    summary="CNN and recurrent encoders, attention among channels and frequencies, several heads, generation",
    config=HybridConfig,
    build=Hybrid,
    cut=cut,
    sample=sample,
)
