"""Multimodal autoencoding: `image` and `audio` to `image`, `audio` and `label`.

The video is encoded in chunks of frames and decoded at the points `image_index` and `audio_index` (row-major indices
into frames x rows x columns, and into audio patches), any subset of them, in chunks. The label is masked, so it is no
input.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from perceiver_deploy.families.components import ComponentStep, component, make_cut, processor
from perceiver_deploy.families.family import Family
from perceiver_deploy.families.kv_cache import cached_attention, kv_specs, project_kv
from perceiver_deploy.families.online_softmax import NEXT, Begin, finish, next_state, state
from perceiver_deploy.models import online_softmax
from perceiver_deploy.models.modalities import MultimodalConfig
from perceiver_deploy.models.multimodal import MultimodalAutoencoder, coordinates_of
from perceiver_deploy.models.released import RELEASED
from perceiver_exporters.component import Cut
from perceiver_runtime.pipeline import Chunk
from perceiver_runtime.settings import ClipSettings, OutputSettings, Processing
from perceiver_runtime.tensors import Array, Range, TensorSpec, ValueRange

POINTS_PER_CHUNK = 6272
"""1 / 128 of the released video."""
GOLDEN_POINTS = 256
DECODED = {"image": "decoded_image", "audio": "decoded_audio"}
"""Outputs that bear an input's name, and the values behind them."""


class BeginAudio(nn.Module):
    """Audio (B, S, 1) to the state after the audio and label tokens, and the index of all frames."""

    def __init__(self, model: MultimodalAutoencoder) -> None:
        super().__init__()
        self.tokens = model.tokens
        self.begin = Begin(model.perceiver, model.config.frames)
        self.update = online_softmax.Update(model.perceiver.encoder)

    def forward(self, audio: Tensor) -> tuple[Tensor, ...]:
        """The audio and label tokens are few: one update takes them all."""
        *started, index = self.begin(audio)
        tokens = torch.cat([self.tokens.audio(audio), self.tokens.label(audio.shape[0])], dim=1)
        return started[0], *self.update(*started, tokens), index


class UpdateFromFrames(nn.Module):
    """Update the online softmax with frames (B, T, C, H, W) at frame_index (T,)."""

    def __init__(self, model: MultimodalAutoencoder) -> None:
        super().__init__()
        self.tokens, self.update = model.tokens, online_softmax.Update(model.perceiver.encoder)

    def forward(
        self, q: Tensor, m: Tensor, total: Tensor, acc: Tensor, image: Tensor, frame_index: Tensor
    ) -> tuple[Tensor, ...]:
        """The next m, total and acc."""
        following: tuple[Tensor, ...] = self.update(q, m, total, acc, self.tokens.frames(image, frame_index))
        return following


class Decoder(nn.Module):
    """What the decoders of all modalities share: queries to decoded features."""

    def __init__(self, model: MultimodalAutoencoder, head: nn.Module) -> None:
        super().__init__()
        self.queries, self.project, self.head, self.config = model.queries, model.project, head, model.config
        self.attention = cached_attention(model.perceiver)

    def answer(self, key: Tensor, value: Tensor, queries: Tensor) -> Tensor:
        """KV cache of the latents, queried by queries (1, O, C), to (B, O, width of the head)."""
        answers: Tensor = self.head(self.project(self.attention(queries, key, value)))
        return answers


class ImageDecoder(Decoder):
    """Keys, values and video points (O,) to pixels (B, O, C)."""

    def forward(self, key: Tensor, value: Tensor, index: Tensor) -> Tensor:
        """Cross-attention and output adapter."""
        return self.answer(key, value, self.queries.image(coordinates_of(index, self.config.video)))


class AudioDecoder(Decoder):
    """Keys, values and audio patches (O,) to samples (B, O, audio_patch)."""

    def forward(self, key: Tensor, value: Tensor, index: Tensor) -> Tensor:
        """Cross-attention and output adapter."""
        return self.answer(key, value, self.queries.audio(index[:, None]))


class LabelDecoder(Decoder):
    """Keys and values to class logits (B, classes)."""

    def forward(self, key: Tensor, value: Tensor) -> Tensor:
        """Cross-attention and output adapter."""
        return self.answer(key, value, self.queries.label())[:, 0]


def cut(model: MultimodalAutoencoder) -> Cut:
    """Online softmax over audio and frames; processor block; KV cache; a decoder per modality."""
    config, perceiver = model.config, model.perceiver
    image, audio = _clip(config)
    index = tuple(TensorSpec(f"{name}_index", "int64", (f"{name}_points",)) for name in DECODED)
    pixels = TensorSpec("image", "float32", ("batch", "image_points", config.channels))
    samples = TensorSpec("audio", "float32", ("batch", "audio_points", config.audio_patch))
    label = TensorSpec("label", "float32", ("batch", config.classes))
    parts = [
        *_encoder(model, audio),
        processor(perceiver.block, perceiver.config),
        project_kv(perceiver),
        _decoder(model, ImageDecoder(model, model.image_head), pixels, "pixels", _points_per_chunk(config)),
        _decoder(
            model, AudioDecoder(model, model.audio_head), samples, "patches", min(POINTS_PER_CHUNK, *config.audio)
        ),
        component("label_decoder", LabelDecoder(model, model.label_head), kv_specs(perceiver), (label,), "decode"),
    ]
    return make_cut(parts, (image, audio, *index), (pixels, samples, label), _dimensions(config), aliases=DECODED)


def _clip(config: MultimodalConfig) -> tuple[TensorSpec, TensorSpec]:
    video = (config.frames, config.channels, config.height, config.width)
    return TensorSpec("image", "float32", ("batch", *video)), TensorSpec(
        "audio", "float32", ("batch", config.samples, 1)
    )


def _encoder(model: MultimodalAutoencoder, audio: TensorSpec) -> list[ComponentStep]:
    config, perceiver = model.config, model.perceiver
    states = state(perceiver.config)
    frames = TensorSpec("image", "float32", ("batch", "frames", config.channels, config.height, config.width))
    every, some = (TensorSpec("frame_index", "int64", (size,)) for size in (config.frames, "frames"))
    return [
        component("encoder_begin", BeginAudio(model), (audio,), (*states, every), "encode"),
        component(
            "encoder_fold",
            UpdateFromFrames(model),
            (*states, frames, some),
            next_state(perceiver.config),
            "encode",
            values=NEXT,
            chunk=Chunk("frames", 1),
            carry=NEXT,
        ),
        finish(perceiver),
    ]


def _decoder(
    model: MultimodalAutoencoder, module: Decoder, output: TensorSpec, points: str, chunk: int
) -> ComponentStep:
    """The graph's dimension `points` is the chunk's; the session's is that of the given index."""
    total = _dimensions(model.config)[points].max
    index = TensorSpec("index", "int64", (points,), ValueRange(0, total - 1))
    own = TensorSpec(DECODED[output.name], output.dtype, ("batch", points, output.shape[2]))
    inputs = (*kv_specs(model.perceiver), index)
    values = {"index": f"{output.name}_index"}
    return component(
        f"{output.name}_decoder", module, inputs, (own,), "decode", values=values, chunk=Chunk(points, chunk)
    )


def _points_per_chunk(config: MultimodalConfig) -> int:
    return min(POINTS_PER_CHUNK, math.prod(config.video))


def _dimensions(config: MultimodalConfig) -> dict[str, Range]:
    points, patches = math.prod(config.video), config.audio[0]
    return {
        "batch": Range(1, 1, 8),
        "frames": Range(1, 1, config.frames),
        "image_points": Range(1, points, points),
        "audio_points": Range(1, patches, patches),
        "pixels": Range(1, _points_per_chunk(config), points),
        "patches": Range(1, patches, patches),
    }


def sample(config: MultimodalConfig, batch: int, random: np.random.Generator) -> Mapping[str, Array]:
    """Uniform pixels and samples, and some points of the output."""
    image, audio = (spec.resolve({"batch": batch}) for spec in _clip(config))
    points, patches = math.prod(config.video), config.audio[0]
    return {
        "image": random.random(image, dtype=np.float32),
        "audio": random.uniform(-1, 1, audio).astype(np.float32),
        "image_index": random.choice(points, min(points, GOLDEN_POINTS), replace=False),
        "audio_index": random.choice(patches, min(patches, GOLDEN_POINTS), replace=False),
    }


MULTIMODAL_AUTOENCODER = Family(
    name="multimodal-autoencoder",
    summary="video and audio to themselves and a class, at any points",
    config=MultimodalConfig,
    build=MultimodalAutoencoder,
    cut=cut,
    sample=sample,
    presets={"multimodal-perceiver": RELEASED["multimodal-perceiver"]},
    processing=lambda _: Processing(
        clip=ClipSettings(), outputs={"label": OutputSettings("classes")}, origin="the released model"
    ),
)
