"""Language models over tokens: inputs `input_ids` and `attention_mask` (default: all ones), output `logits`.

A text has any length up to the model's. The decoder of the masked language model reads the value `positions`: those of
the text in a run, and any others that `Session.decode` is given.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from perceiver_deploy.families.components import (
    BATCH,
    ClassDecoder,
    ComponentStep,
    component,
    latents_spec,
    make_cut,
    processor,
)
from perceiver_deploy.families.family import Family
from perceiver_deploy.models.perceiver import Perceiver
from perceiver_deploy.models.released import RELEASED
from perceiver_deploy.models.text import (
    MaskedLanguageModel,
    MaskedLanguageModelConfig,
    SequenceClassifier,
    SequenceClassifierConfig,
    TokenEmbedding,
)
from perceiver_exporters.component import Cut
from perceiver_runtime.processing.text import MASK, ByteTokenizer
from perceiver_runtime.settings import OutputSettings, Processing, TextSettings
from perceiver_runtime.tensors import Array, Range, TensorSpec, ValueRange

TEXT = ("batch", "length")
INPUTS = (TensorSpec("input_ids", "int64", TEXT), TensorSpec("attention_mask", "int64", TEXT, ValueRange(0, 1)))
POSITIONS = TensorSpec("positions", "int64", ("length",))


class TextEncoder(nn.Module):
    """Ids (B, L), read where attention_mask (B, L) is not 0, to latents (B, N, D)."""

    def __init__(self, tokens: TokenEmbedding, perceiver: Perceiver) -> None:
        super().__init__()
        self.tokens, self.initial, self.layer = tokens, perceiver.latents, perceiver.encoder

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Embedding and cross-attention."""
        latents = self.initial.expand(input_ids.shape[0], -1, -1)
        encoded: Tensor = self.layer(latents, self.tokens(input_ids), attention_mask != 0)
        return encoded


class PositionedTextEncoder(TextEncoder):
    """Gives the text's positions (L,) beside the latents."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Latents and positions."""
        return super().forward(input_ids, attention_mask), torch.arange(input_ids.shape[1], device=input_ids.device)


class TextDecoder(nn.Module):
    """Latents (B, N, D) queried at text positions (L,), to logits (B, L, vocabulary)."""

    def __init__(self, model: MaskedLanguageModel) -> None:
        super().__init__()
        self.layer, self.query, self.head = model.perceiver.decoder, model.query, model.head
        self.embeddings = model.tokens.tokens.weight if model.config.tied else None

    def forward(self, latents: Tensor, positions: Tensor) -> Tensor:
        """Cross-attention and output adapter."""
        decoded = self.layer(self.query[positions][None], latents)
        logits: Tensor = self.head(decoded) if self.embeddings is None else self.head(decoded, self.embeddings)
        return logits


def cut_language_model(model: MaskedLanguageModel) -> Cut:
    """Encoder, processor block, decoder."""
    config = model.config
    latents = latents_spec(config.perceiver)
    logits = TensorSpec("logits", "float32", (*TEXT, config.vocabulary))
    encoder = PositionedTextEncoder(model.tokens, model.perceiver)
    parts = [
        component("encoder", encoder, INPUTS, (latents, POSITIONS), "encode"),
        processor(model.perceiver.block, config.perceiver),
        component("decoder", TextDecoder(model), (latents, POSITIONS), (logits,), "decode"),
    ]
    return _join(parts, logits, config.max_length)


def cut_classifier(model: SequenceClassifier) -> Cut:
    """Encoder, processor block, decoder."""
    config = model.config
    latents = latents_spec(config.perceiver)
    logits = TensorSpec("logits", "float32", ("batch", config.classes))
    parts = [
        component("encoder", TextEncoder(model.tokens, model.perceiver), INPUTS, (latents,), "encode"),
        processor(model.perceiver.block, config.perceiver),
        component(
            "decoder", ClassDecoder(model.perceiver.decoder, model.query, model.head), (latents,), (logits,), "decode"
        ),
    ]
    return _join(parts, logits, config.max_length)


def _join(parts: list[ComponentStep], logits: TensorSpec, max_length: int) -> Cut:
    dimensions = {"batch": BATCH, "length": Range(1, max_length, max_length)}
    return make_cut(parts, INPUTS, (logits,), dimensions, {"attention_mask": 1.0})


def sample(
    config: MaskedLanguageModelConfig | SequenceClassifierConfig, batch: int, random: np.random.Generator
) -> Mapping[str, Array]:
    """Uniform ids; texts end at random places."""
    ends = random.integers(1, config.max_length + 1, (batch, 1))
    return {
        "input_ids": random.integers(0, config.vocabulary, (batch, config.max_length)),
        "attention_mask": (np.arange(config.max_length) < ends).astype(np.int64),
    }


def processing(config: MaskedLanguageModelConfig | SequenceClassifierConfig) -> Processing:
    """The released tokenizer: bytes between [CLS] and [SEP]."""
    released = ByteTokenizer()
    masked = isinstance(config, MaskedLanguageModelConfig)
    text = TextSettings(
        attention_mask="attention_mask",
        special_tokens=released.special_tokens,
        offset=released.offset,
        prefix=released.prefix,
        suffix=released.suffix,
        padding=released.padding,
        mask=MASK if masked else None,
        max_length=config.max_length,
    )
    return Processing(text=text, outputs={"logits": OutputSettings("tokens")} if masked else {}, origin=ORIGIN)


ORIGIN = "the released models"

MASKED_LANGUAGE_MODEL = Family(
    name="masked-language-model",
    summary="a token for every position of a text",
    config=MaskedLanguageModelConfig,
    build=MaskedLanguageModel,
    cut=cut_language_model,
    sample=sample,
    presets={"language-perceiver": RELEASED["language-perceiver"]},
    processing=processing,
)
SEQUENCE_CLASSIFIER = Family(
    name="sequence-classifier",
    summary="a class for a text",
    config=SequenceClassifierConfig,
    build=SequenceClassifier,
    cut=cut_classifier,
    sample=sample,
    presets={"language-perceiver-classifier": RELEASED["language-perceiver-classifier"]},
    processing=processing,
)
