"""Answers of a bundle for images, texts, frames and clips: `predict`, one item after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from perceiver_runtime.execution.session import Feeds, Session
from perceiver_runtime.format.ranges import batch_within
from perceiver_runtime.processing.fill_mask import fill
from perceiver_runtime.processing.flow import FlowOptions, stream_flow
from perceiver_runtime.processing.labels import Prediction
from perceiver_runtime.processing.multimodal import clip_shape, fit_video, reconstruct
from perceiver_runtime.processing.processor import Processor, processor_of
from perceiver_runtime.tensors import Array


@dataclass(frozen=True)
class Answers:
    """What a bundle says of one item.

    Attributes:
        item: Name of the item.
        classes: The likeliest classes, best first, by output.
        numbers: Numbers by output.
        texts: Texts by output: with its masks filled in, or generated.
        arrays: Every output as the model gave it, without the batch axis; flow in pixels.
    """

    item: str
    classes: Mapping[str, tuple[Prediction, ...]] = field(default_factory=dict)
    numbers: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)
    arrays: Mapping[str, Array] = field(default_factory=dict)


Items = Iterable[tuple[str, Any]]


def predict(session: Session, items: Items, k: int = 5) -> Iterator[Answers]:
    """Answers for items, in order.

    Args:
        session: A session.
        items: Names and items, as `Processor.encode` takes them. For a flow model each is a frame of any size, and the
            answers are of each frame and the next.
        k: Number of classes; where there are fewer, all.

    Returns:
        The answers, one item after the other: no two items are in memory at once.

    Raises:
        UsageError: The bundle's processing is not known.
        FeedError: An item is of a wrong kind or size.
    """
    processor = processor_of(session.manifest)
    for name in ("flow", "clip"):
        if name in processor.modalities:
            return PREDICTORS[name](session, processor, items, k)
    return _items(session, processor, items, k)


def _items(session: Session, processor: Processor, items: Items, k: int) -> Iterator[Answers]:
    smallest = batch_within(session.manifest.profiles, 1)
    for name, item in items:
        feeds = {n: np.repeat(array, smallest, axis=0) for n, array in processor.encode([item]).items()}
        outputs = {n: array[:1] for n, array in session.run(feeds).items()}
        texts = {**_filled(processor, feeds, outputs), **_generated(session, processor, feeds)}
        yield _answers(processor, name, outputs, session.manifest.labels, k, texts)


def _answers(
    processor: Processor, item: str, outputs: Feeds, labels: Sequence[str], k: int, texts: Mapping[str, str]
) -> Answers:
    """The answers of one item from outputs (1, ...)."""
    (decoded,) = processor.decode(outputs, labels, k)
    tasks = {name: known.task for name, known in processor.settings.outputs.items()}
    return Answers(
        item,
        classes={name: tuple(answer) for name, answer in decoded.items() if isinstance(answer, list)},
        numbers={
            name: tuple(map(float, np.atleast_1d(answer)))
            for name, answer in decoded.items()
            if isinstance(answer, np.ndarray) and tasks.get(name) == "numbers"
        },
        texts=texts,
        arrays={name: array[0] for name, array in outputs.items()},
    )


def _filled(processor: Processor, feeds: Feeds, outputs: Feeds) -> dict[str, str]:
    """The text with its masks filled in, of a model that fills them in. Raises FeedError for a text without masks."""
    text = processor.settings.text
    if text is None or text.mask is None or text.input not in feeds:
        return {}
    tokenizer, ids = processor.tokenizer(), feeds[text.input][0]
    tokens = [name for name, known in processor.settings.outputs.items() if known.task == "tokens" and name in outputs]
    read = tokenizer.decode(ids, skip_special_tokens=True)
    return {name: fill(read, ids, outputs[name][0], tokenizer, text.mask).text for name in tokens}


def _generated(session: Session, processor: Processor, feeds: Feeds) -> dict[str, str]:
    """What the model writes, if it generates texts."""
    texts: dict[str, str] = {}
    for generation in session.manifest.pipeline.generations if processor.settings.text is not None else ():
        made = session.generate(feeds, generation.name)
        ids = made.ids[0, : int(made.lengths[0])]
        texts[generation.name] = processor.tokenizer().decode(ids, skip_special_tokens=True)
    return texts


def _flows(session: Session, processor: Processor, items: Items, k: int) -> Iterator[Answers]:
    settings = processor.settings.flow
    assert settings is not None  # one of the modalities
    names: list[str] = []

    def frames() -> Iterator[Any]:
        for name, frame in items:
            names.append(name)
            yield frame

    for flow in stream_flow(session, frames(), FlowOptions(settings.overlap, settings.scale)):
        speed = np.hypot(flow[..., 0], flow[..., 1])
        found = {"mean speed": (float(speed.mean()),), "largest speed": (float(speed.max()),)}
        yield Answers(f"{names[-2]} to {names[-1]}", numbers=found, arrays={"flow": flow})


def _clips(session: Session, processor: Processor, items: Items, k: int) -> Iterator[Answers]:
    shape = clip_shape(session)
    for name, (video, audio) in items:
        made = reconstruct(session, fit_video(video, shape.height, shape.width), audio)
        scores = np.log(np.maximum(made.probabilities, np.finfo(np.float32).tiny))[None]
        answers = _answers(processor, name, {"label": scores}, session.manifest.labels, k, {})
        arrays: dict[str, Array] = {"image": made.video, "audio": made.audio, "label": made.probabilities}
        yield Answers(name, answers.classes, arrays=arrays)


PREDICTORS: Mapping[str, Callable[[Session, Processor, Items, int], Iterator[Answers]]] = {
    "flow": _flows,
    "clip": _clips,
}
