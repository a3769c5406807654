"""Healthy models to be broken: small enough to be exported in a second, random in every parameter."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from factories.weights import randomise
from torch import Tensor, nn

from perceiver_deploy.models.attention import Attention, CrossAttentionLayer, ProcessorBlock, SelfAttentionLayer
from perceiver_deploy.models.config import CrossAttentionConfig, ProcessorConfig
from perceiver_exporters.component import Blueprint, Component, Cut
from perceiver_exporters.weights import weights_sha256
from perceiver_runtime.manifest import Source
from perceiver_runtime.pipeline import Pipeline, Step
from perceiver_runtime.tensors import Profile, Range, TensorSpec

TOKENS, WIDTH, LATENTS, DIM, CLASSES, REPEAT = 24, 24, 8, 32, 5, 3
KEYS = 65_536


class Encoder(nn.Module):
    """Tokens with a learned, square position table, read by learned latents."""

    def __init__(self) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.empty(TOKENS, WIDTH))
        self.initial = nn.Parameter(torch.empty(LATENTS, DIM))
        self.layer = CrossAttentionLayer(DIM, WIDTH, CrossAttentionConfig(heads=2, qk_dim=WIDTH, v_dim=WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        positioned = x + self.positions
        encoded: Tensor = self.layer(self.initial.expand(x.shape[0], -1, -1), positioned)
        return encoded


class Decoder(nn.Module):
    """One query, then the class head."""

    def __init__(self) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.empty(1, DIM))
        self.layer = CrossAttentionLayer(DIM, DIM, CrossAttentionConfig(heads=2, qk_dim=DIM, v_dim=DIM))
        self.head = nn.Linear(DIM, CLASSES)

    def forward(self, latents: Tensor) -> Tensor:
        logits: Tensor = self.head(self.layer(self.query.expand(latents.shape[0], -1, -1), latents)[:, 0])
        return logits


class LongAttention(nn.Module):
    """A single query over 65,536 keys, four numbers each."""

    def __init__(self) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.empty(1, 8))
        self.attention = Attention(8, 4, 8, 4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        attended: Tensor = self.attention(self.query.expand(x.shape[0], -1, -1), x)
        return attended


def perceiver(seed: int = 0) -> Blueprint:
    """Encoder, a block that runs three times, decoder."""
    x, latents = _spec("x", TOKENS, WIDTH), _spec("latents", LATENTS, DIM)
    latents_out, logits = _spec("latents_out", LATENTS, DIM), _spec("logits", CLASSES)
    block = ProcessorBlock(DIM, ProcessorConfig(blocks=REPEAT, layers=2, heads=4))
    modules = [randomise(module, seed + i, spread=True) for i, module in enumerate((Encoder(), block, Decoder()))]
    components = (
        Component("encoder", modules[0], (x,), (latents,)),
        Component("processor_block", modules[1], (latents,), (latents_out,)),
        Component("decoder", modules[2], (latents,), (logits,)),
    )
    carried = {"latents_out": "latents"}
    steps = (
        Step("encoder", {"x": "x"}, {"latents": "latents"}, "encode"),
        Step("processor_block", {"latents": "latents"}, carried, "encode", REPEAT, None, carried),
        Step("decoder", {"latents": "latents"}, {"logits": "logits"}, "decode"),
    )
    cut = Cut(components, Pipeline((x,), (logits,), steps), _profile())
    return _blueprint(nn.ModuleList(modules), cut, (TOKENS, WIDTH), seed)


def long_attention(seed: int = 0) -> Blueprint:
    """65,536 keys in one softmax, whose scores lie around 0: their exponentials add up to more than FP16 can hold."""
    module = randomise(LongAttention(), seed, spread=True)
    module.attention.key.bias.zero_()
    return _single(module, (KEYS, 4), (1, 8), seed, batch=1)


def loud(seed: int = 0) -> Blueprint:
    """A self-attention layer whose inputs are so large that their squares leave FP16's range."""
    quiet = layer(0, seed)
    louder = [{"x": feeds["x"] * np.float32(300)} for feeds in (*quiet.golden, *quiet.calibration)]
    return dataclasses.replace(quiet, golden=tuple(louder[:1]), calibration=tuple(louder[1:]))


def trunk(seed: int = 0) -> Blueprint:
    """Four layers that run once."""
    block = ProcessorBlock(DIM, ProcessorConfig(blocks=1, layers=4, heads=4))
    return _single(randomise(block, seed, spread=True), (LATENTS, DIM), (LATENTS, DIM), seed)


def layer(sizes: int, seed: int = 0) -> Blueprint:
    """A self-attention layer of random sizes and random weights."""
    random = np.random.default_rng(sizes)
    heads = int(random.choice([1, 2, 4]))
    dim = heads * int(random.integers(4, 13)) * 2
    config = ProcessorConfig(
        blocks=1, layers=1, heads=heads, widening=int(random.choice([1, 2, 4])), gated=bool(random.integers(2))
    )
    shape = int(random.integers(3, 17)), dim
    return _single(randomise(SelfAttentionLayer(dim, config), seed, spread=True), shape, shape, seed)


def _single(module: nn.Module, shape: tuple[int, int], out: tuple[int, int], seed: int, batch: int = 4) -> Blueprint:
    x, y = _spec("x", *shape), _spec("y", *out)
    pipeline = Pipeline((x,), (y,), (Step("layer", {"x": "x"}, {"y": "y"}, "encode"),))
    return _blueprint(module, Cut((Component("layer", module, (x,), (y,)),), pipeline, _profile()), shape, seed, batch)


def _blueprint(module: nn.Module, cut: Cut, shape: tuple[int, int], seed: int, batch: int = 4) -> Blueprint:
    random = np.random.default_rng(seed)
    feeds = tuple({"x": random.standard_normal((batch, *shape), dtype=np.float32)} for _ in range(4))
    source = Source("subject", "toy", weights_sha256(module), {}, pretrained=False)
    return Blueprint(source, cut, feeds[:1], feeds[1:])


def _spec(name: str, *shape: int) -> TensorSpec:
    return TensorSpec(name, "float32", ("batch", *shape))


def _profile() -> Profile:
    return Profile("default", {"batch": Range(1, 1, 8)})
