"""Building blocks of the families' cuts: components with their steps, and shared modules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import Tensor, nn

from perceiver_deploy.models.attention import CrossAttentionLayer, ProcessorBlock
from perceiver_deploy.models.config import PerceiverConfig
from perceiver_deploy.models.perceiver import Perceiver
from perceiver_exporters.component import Component, Cut
from perceiver_runtime.pipeline import Chunk, Pipeline, Stage, Step
from perceiver_runtime.tensors import Profile, Range, TensorSpec

ComponentStep = tuple[Component, Step]
Specs = tuple[TensorSpec, ...]

BATCH = Range(1, 1, 64)


def component(
    name: str,
    module: nn.Module,
    inputs: Specs,
    outputs: Specs,
    stage: Stage,
    values: Mapping[str, str] | None = None,
    chunk: Chunk | None = None,
    carry: Mapping[str, str] | None = None,
) -> ComponentStep:
    """A component and its step; graph inputs and outputs are values of the same names, except those in `values`."""
    renamed = values or {}
    step = Step(
        name,
        {spec.name: renamed.get(spec.name, spec.name) for spec in inputs},
        {spec.name: renamed.get(spec.name, spec.name) for spec in outputs},
        stage,
        chunk=chunk,
        carry=carry or {},
    )
    return Component(name, module, inputs, outputs), step


def make_cut(
    parts: Sequence[ComponentStep],
    inputs: Specs,
    outputs: Specs,
    dimensions: Mapping[str, Range],
    defaults: Mapping[str, float] | None = None,
    aliases: Mapping[str, str] | None = None,
) -> Cut:
    """A cut of these component steps in order; `aliases` map output names to the names of other values."""
    steps = tuple(step for _, step in parts)
    pipeline = Pipeline(inputs, outputs, steps, defaults or {}, aliases=aliases or {})
    return Cut(tuple(component for component, _ in parts), pipeline, Profile("default", dimensions))


def latents_spec(config: PerceiverConfig, name: str = "latents") -> TensorSpec:
    """The latents (B, N, D)."""
    return TensorSpec(name, "float32", ("batch", config.latents, config.latent_dim))


def processor(block: ProcessorBlock, config: PerceiverConfig, name: str = "processor_block") -> ComponentStep:
    """The shared self-attention block: one graph, repeated by the pipeline."""
    return repeated(name, block, latents_spec(config), (), config.processor.blocks)


def repeated(name: str, module: nn.Module, latents: TensorSpec, others: Specs, times: int) -> ComponentStep:
    """A component that updates the latents a number of times: `module(latents, *others)` gives the next ones."""
    step = Step(
        name,
        {spec.name: spec.name for spec in (latents, *others)},
        {"latents_out": "latents"},
        "encode",
        repeat=times,
        carry={"latents_out": "latents"},
    )
    return Component(name, module, (latents, *others), (replace(latents, name="latents_out"),)), step


class Encoder(nn.Module):
    """Inputs (B, ...) to latents (B, N, D) before the processor: input adapter and cross-attention."""

    def __init__(self, tokens: nn.Module, perceiver: Perceiver) -> None:
        super().__init__()
        self.tokens, self.initial, self.layer = tokens, perceiver.latents, perceiver.encoder

    def forward(self, inputs: Tensor) -> Tensor:
        """Attend to all tokens."""
        tokens = self.tokens(inputs)
        latents: Tensor = self.layer(self.initial.expand(tokens.shape[0], -1, -1), tokens)
        return latents


class ClassDecoder(nn.Module):
    """Latents (B, N, D) to logits (B, classes): cross-attention from one learned query, and the class head."""

    def __init__(self, layer: CrossAttentionLayer, query: nn.Parameter, head: nn.Module) -> None:
        super().__init__()
        self.layer, self.query, self.head = layer, query, head

    def forward(self, latents: Tensor) -> Tensor:
        """Attend from the one query."""
        logits: Tensor = self.head(self.layer(self.query[None], latents)[:, 0])
        return logits
