"""`perceiver-run predict BUNDLE photo.jpg ...`: labelled answers for images, texts, frames and clips."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from perceiver_runtime.cli import report
from perceiver_runtime.cli.options import integer
from perceiver_runtime.errors import FeedError, UsageError
from perceiver_runtime.escapes import printable
from perceiver_runtime.execution.session import Session
from perceiver_runtime.format import arrays, schema
from perceiver_runtime.format.outputs import check_file, replacing
from perceiver_runtime.tensors import Array

if TYPE_CHECKING:  # other commands must not wait for these modules
    from perceiver_runtime.processing.predict import Answers
    from perceiver_runtime.processing.processor import Processor

Row = tuple[str, str, str, str]
COLUMNS = ("item:<", "output:<", "answer:<", "probability")


def add_command(commands: Any, device: argparse.ArgumentParser, opened: Callable[..., Session]) -> None:
    """Add the command to the parser of `perceiver-run`; `opened` opens the session that its options ask for."""
    parser = commands.add_parser("predict", parents=[device], help="answers for images, texts, frames and clips")
    parser.add_argument(
        "files", nargs="*", type=Path, metavar="FILE", help="images, texts, or frames in order; .npy for arrays"
    )
    parser.add_argument("--text", action="append", default=[], metavar="TEXT", help="one text; repeat for more")
    parser.add_argument("--audio", type=Path, metavar="FILE.wav", help="the sound of a clip whose frames are given")
    parser.add_argument("-k", type=integer(1), default=5, help="classes shown for each item (default: 5)")
    parser.add_argument(
        "-o", "--out", type=Path, metavar="FILE", help="also write the answers (.json), or the outputs as arrays (.npz)"
    )
    parser.set_defaults(command=lambda options: run(options, opened))


def run(options: argparse.Namespace, opened: Callable[..., Session]) -> int:
    """Predict, and print the answers; the other commands do not wait for the modules imported here."""
    from perceiver_runtime.processing.predict import predict
    from perceiver_runtime.processing.processor import processor_of

    if options.out is not None:
        if options.out.suffix not in WRITERS:
            raise UsageError(f"-o: expected a name that ends in {' or '.join(WRITERS)}, got {options.out}")
        check_file(options.out)
    rows: list[Row] = []
    records: list[dict[str, Any]] = []
    kept: list[Mapping[str, Array]] = []
    with opened(options, check_finite=True) as session:
        items = _items(options, processor_of(session.manifest))
        for answers in predict(session, items, options.k):
            rows += _rows(answers)
            record = {name: value for name, value in vars(answers).items() if name != "arrays"}
            records.append(schema.encode({**record, "runs_on": session.runs_on}))
            kept += [answers.arrays] if options.out is not None and options.out.suffix == ".npz" else []
    if options.out is not None:
        WRITERS[options.out.suffix](options.out, records, kept)
    written = f"\nwritten to {printable(str(options.out))}" if options.out is not None else ""
    print(report.to_json(records) if options.json else f"{options.draw(COLUMNS, rows)}{written}")
    return 0


def _items(options: argparse.Namespace, processor: Processor) -> Iterator[tuple[str, Any]]:
    """Names and items, read one after the other."""
    known, files, texts = processor.modalities, options.files, options.text
    if texts and "text" not in known:
        raise UsageError(f"--text: this bundle takes {' and '.join(known)}")
    if options.audio is not None and "clip" not in known:
        raise UsageError(f"--audio: this bundle takes {' and '.join(known)}")
    if not files and not texts:
        raise UsageError(f"FILE: expected {' or '.join(FORMS[name] for name in known)}, got none")
    if "clip" in known:
        return _clip(files, options.audio)
    if "flow" in known:
        return _frames(files)
    if "image" not in known:
        return _texts(files, texts)
    if files and texts and len(files) != len(texts):
        raise UsageError(f"--text: expected one for each image, got {len(texts)} for {len(files)}")
    return _images(files, texts, processor)


FORMS = {
    "image": "an image",
    "text": "a text, or --text",
    "flow": "two frames or more",
    "clip": "the frames of a clip, with --audio",
}


def _images(files: Sequence[Path], texts: Sequence[str], processor: Processor) -> Iterator[tuple[str, Any]]:
    from perceiver_runtime.processing.files import read_image

    channels = processor.settings.image.channels if processor.settings.image is not None else 0
    if not files:
        yield from _texts((), texts)
    for number, file in enumerate(files):
        image = read_image(file, channels)
        yield str(file), {"image": image, "text": texts[number]} if texts else image


def _texts(files: Sequence[Path], texts: Sequence[str]) -> Iterator[tuple[str, str]]:
    from perceiver_runtime.processing.files import read_text

    yield from ((text, text) for text in texts)
    yield from ((str(file), read_text(file)) for file in files)


def _frames(files: Sequence[Path]) -> Iterator[tuple[str, Array]]:
    """Every frame of every file."""
    from perceiver_runtime.processing.files import read_frames

    count = 0
    for file in files:
        for number, frame in enumerate(read_frames(file)):
            yield f"{file}#{number}" if number else str(file), frame
            count += 1
    if count < 2:
        raise UsageError(f"FILE: expected two frames or more, between which is flow, got {count}")


def _clip(files: Sequence[Path], audio: Path | None) -> Iterator[tuple[str, Any]]:
    from perceiver_runtime.processing.files import read_sound

    if audio is None:
        raise UsageError("--audio: expected the clip's sound, got none; give a WAV file")
    frames = [frame for _, frame in _frames(files)]
    if len({frame.shape for frame in frames}) > 1:
        raise FeedError(f"{files[0]}: expected frames of one size, got several")
    yield str(files[0]), (np.stack(frames), read_sound(audio))


def _rows(answers: Answers) -> Iterator[Row]:
    item = answers.item
    for output, found in answers.classes.items():
        yield from ((item, output, one.label, f"{one.probability:.4f}") for one in found)
    for output, numbers in answers.numbers.items():
        yield item, output, " ".join(f"{number:.4g}" for number in numbers), ""
    yield from ((item, output, text, "") for output, text in answers.texts.items())
    if not (answers.classes or answers.numbers or answers.texts):
        yield from ((item, n, f"{array.dtype}{list(array.shape)}", "") for n, array in answers.arrays.items())


def _write_json(path: Path, records: Sequence[Any], kept: Sequence[Mapping[str, Array]]) -> None:
    with replacing(path) as partial:
        partial.write_text(report.to_json(records) + "\n", encoding="utf-8")


def _write_arrays(path: Path, records: Sequence[Any], kept: Sequence[Mapping[str, Array]]) -> None:
    """One array of all items by output, items first; by output and item where their shapes differ."""
    made: dict[str, Array] = {}
    for name in kept[0]:
        found = [outputs[name] for outputs in kept]
        same = len({array.shape for array in found}) == 1
        made |= {name: np.stack(found)} if same else {f"{name}/{i}": array for i, array in enumerate(found)}
    arrays.save(path, made)


WRITERS: Mapping[str, Callable[[Path, Sequence[Any], Sequence[Mapping[str, Array]]], None]] = {
    ".json": _write_json,
    ".npz": _write_arrays,
}
