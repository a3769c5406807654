"""Inputs from images, texts, frames and clips, and answers from outputs, by the settings that travel with a bundle."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from perceiver_runtime.errors import FeedError, UsageError
from perceiver_runtime.manifest import Manifest
from perceiver_runtime.processing.labels import Prediction, top_k
from perceiver_runtime.processing.patches import patches
from perceiver_runtime.processing.pixels import check_settings, fitted, image_values
from perceiver_runtime.processing.text import ByteTokenizer
from perceiver_runtime.settings import Processing, TextSettings
from perceiver_runtime.tensors import Array, Profile, TensorSpec

Answer = list[Prediction] | Array
"""The likeliest classes of one item, best first; or the values of an output that are no scores of classes."""

LOGITS = "logits"
"""The output that holds scores of classes where the settings do not say what outputs are."""


@dataclass(frozen=True)
class Processor:
    """Encodes items and decodes outputs.

    Attributes:
        settings: What the model's checkpoint states.
        inputs: The model's inputs; empty where their sizes are not known.
        profiles: Sizes that the model takes.
    """

    settings: Processing
    inputs: tuple[TensorSpec, ...] = ()
    profiles: tuple[Profile, ...] = ()

    @property
    def modalities(self) -> tuple[str, ...]:
        """What an item is made of: `image`, `text`, `flow` (a pair of frames), `clip` (frames and samples)."""
        return tuple(name for name in ENCODERS if getattr(self.settings, name) is not None)

    def encode(self, items: Sequence[Any]) -> dict[str, Array]:
        """Items as a batch of inputs.

        Args:
            items: Images (H, W, C) of 8 bits, texts, pairs of frames (H, W, 3), or clips (frames, samples). For a model
                of several modalities each may be a mapping: `{"image": array, "text": "..."}`; all with the same keys.

        Returns:
            Arrays by input, items first. Inputs that an item does not have are left out.

        Raises:
            FeedError: An item is none of these, or has a size that the model does not take.
        """
        if not isinstance(items, Sequence) or isinstance(items, str) or not len(items):
            raise FeedError(f"items: expected a sequence of at least one, got {type(items).__name__}")
        rows = [self._parts(item) for item in items]
        if len({tuple(sorted(row)) for row in rows}) > 1:
            raise FeedError("items: expected all with the same modalities; give the others in another batch")
        feeds: dict[str, Array] = {}
        for name in rows[0]:
            feeds |= ENCODERS[name](self, [row[name] for row in rows])
        return feeds

    def decode(self, outputs: Mapping[str, Array], labels: Sequence[str] = (), k: int = 5) -> list[dict[str, Answer]]:
        """Outputs of a session as answers, item by item.

        Args:
            outputs: Arrays by output, items first.
            labels: Names of the classes of an output for which the settings have none: those of the manifest.
            k: Number of classes; where there are fewer, all.

        Returns:
            For each item, what each output says.

        Raises:
            FeedError: An output has another rank, or is not finite.
            UsageError: The number of labels is wrong.
        """
        if not outputs:
            raise FeedError("outputs: expected at least one, got none")
        answers = {name: self._answers(name, array, labels, k) for name, array in outputs.items()}
        count = min(map(len, answers.values()))
        return [{name: rows[i] for name, rows in answers.items()} for i in range(count)]

    def tokenizer(self) -> ByteTokenizer:
        """The tokenizer of the text. Raises UsageError for a model without."""
        if self.settings.text is None:
            raise UsageError(f"text: this model takes {' and '.join(self.modalities) or 'none'}")
        return tokenizer_of(self.settings.text)

    def spec(self, name: str) -> TensorSpec | None:
        """The input of that name; None if the inputs are not known."""
        return next((spec for spec in self.inputs if spec.name == name), None)

    def _parts(self, item: Any) -> Mapping[str, Any]:
        known = self.modalities
        if isinstance(item, Mapping):
            if not item or (unknown := [name for name in item if name not in known]):
                got = ", ".join(map(str, unknown)) if item else "nothing"
                raise FeedError(f"item: expected {' or '.join(known)}, got {got}")
            return item
        kinds = {"image": np.ndarray, "text": str, "flow": (tuple, list), "clip": (tuple, list)}
        for name in known:
            if isinstance(item, kinds[name]):  # type: ignore[arg-type]
                return {name: item}
        raise FeedError(f"item: expected {' or '.join(map(FORMS.__getitem__, known))}, got {type(item).__name__}")

    def holds_classes(self, spec: TensorSpec) -> bool:
        """Whether an output holds scores of classes: by the settings, or else if it is `logits` (batch, classes)."""
        known = self.settings.outputs.get(spec.name)
        return known.task == "classes" if known is not None else spec.name == LOGITS and spec.rank == 2

    def labels(self, output: str, others: Sequence[str] = ()) -> Sequence[str]:
        """Names of the classes of an output: those of the settings, or else `others`."""
        known = self.settings.outputs.get(output)
        return known.labels if known is not None and known.labels else others

    def _answers(self, name: str, array: Array, labels: Sequence[str], k: int) -> Sequence[Answer]:
        if not self.holds_classes(TensorSpec(name, array.dtype.name, array.shape)):
            return list(array)
        return top_k(array, self.labels(name, labels), min(k, array.shape[-1]))

    def _images(self, images: Sequence[Any]) -> dict[str, Array]:
        settings = self.settings.image
        assert settings is not None  # one of the modalities
        spec = self.spec(settings.input)
        return {settings.input: np.stack([fitted(image_values(image, settings), spec) for image in images])}

    def _texts(self, texts: Sequence[Any]) -> dict[str, Array]:
        settings = self.settings.text
        assert settings is not None  # one of the modalities
        spec, tokenizer = self.spec(settings.input), self.tokenizer()
        length = spec.shape[1] if spec is not None and spec.rank == 2 else None
        limits = [p.dimensions[length].max for p in self.profiles if isinstance(length, str) and length in p.dimensions]
        room = length if isinstance(length, int) else max(limits, default=tokenizer.max_length)
        made = tokenizer.limited(room).encode(
            list(texts),
            padding="max_length" if isinstance(length, int) else "longest",
            truncation=settings.truncation,
        )
        feeds = {settings.input: made["input_ids"]}
        return feeds | ({settings.attention_mask: made["attention_mask"]} if settings.attention_mask else {})

    def _pairs(self, pairs: Sequence[Any]) -> dict[str, Array]:
        settings = self.settings.flow
        assert settings is not None  # one of the modalities
        if any(len(pair) != 2 for pair in pairs):
            raise FeedError(f"item: expected {FORMS['flow']}, got {[len(pair) for pair in pairs]} frames")
        spec = self.spec(settings.input)
        return {settings.input: np.stack([fitted(np.stack([patches(f) for f in pair]), spec) for pair in pairs])}

    def _clips(self, clips: Sequence[Any]) -> dict[str, Array]:
        from perceiver_runtime.processing.multimodal import clip_values

        settings = self.settings.clip
        assert settings is not None  # one of the modalities
        made = [clip_values(*clip) for clip in clips]
        names = (settings.video, settings.audio)
        return {name: np.stack([fitted(row[i], self.spec(name)) for row in made]) for i, name in enumerate(names)}


ENCODERS: Mapping[str, Callable[[Processor, Sequence[Any]], dict[str, Array]]] = {
    "image": Processor._images,
    "text": Processor._texts,
    "flow": Processor._pairs,
    "clip": Processor._clips,
}
FORMS = {
    "image": "an image (H, W, C) of 8 bits",
    "text": "a text",
    "flow": "a pair of frames",
    "clip": "a clip (frames, samples)",
}


def processor_of(source: Manifest | Processing | None, inputs: Sequence[TensorSpec] = ()) -> Processor:
    """The processor of a bundle, or of settings.

    Args:
        source: A manifest, or its `processing`.
        inputs: Inputs of the model, where no manifest tells them.

    Returns:
        The processor.

    Raises:
        UsageError: There are no settings, the checkpoint's processing can't be done, or does not fit the inputs.
    """
    profiles: tuple[Profile, ...] = ()
    if isinstance(source, Manifest):
        inputs, profiles, source = source.pipeline.inputs, source.profiles, source.processing
    if source is None:
        raise UsageError(f"processing: expected how inputs are made, the model states nothing; {REMEDY}")
    if source.refusal:
        raise UsageError(f"processing: {source.refusal}; {REMEDY}")
    processor = Processor(source, tuple(inputs), profiles)
    if not processor.modalities:
        raise UsageError(f"processing: expected image, text, flow or clip, got none of them; {REMEDY}")
    if source.image is not None:
        check_settings(source.image, processor.spec(source.image.input))
    return processor


REMEDY = "give the model's inputs as arrays: `perceiver-run run`, or `Session.run`"


def tokenizer_of(settings: TextSettings) -> ByteTokenizer:
    """The tokenizer that these settings describe. Raises UsageError for settings that contradict each other."""
    return ByteTokenizer(
        max_length=settings.max_length,
        special_tokens=settings.special_tokens,
        offset=settings.offset,
        prefix=settings.prefix,
        suffix=settings.suffix,
        padding=settings.padding,
    )
