"""Sources of samples: every kind gives the same samples in the same order, however often it is read."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import png
import pytest
from factories.samples import arrays
from torch.utils.data import DataLoader

from perceiver_deploy.data.images import read_flow
from perceiver_deploy.data.open import open_data
from perceiver_deploy.data.source import Sample, Source
from perceiver_runtime.errors import DatasetError, PerceiverError, UsageError
from perceiver_runtime.evaluation.interface import Interface
from perceiver_runtime.tensors import TensorSpec

LOGITS = TensorSpec("logits", "float32", ("batch", 10))
IMAGES = Interface((TensorSpec("pixel_values", "float32", ("batch", 1, 16, 16)),), (LOGITS,))
IDS = TensorSpec("input_ids", "int64", ("batch", "length"))
TEXTS = Interface((IDS,), (TensorSpec("logits", "float32", ("batch", 2)),), labels=("no", "yes"))
FRAMES = TensorSpec("inputs", "float32", ("batch", 2, 27, 4, 6))
FLOWS = Interface((FRAMES,), (TensorSpec("flow", "float32", ("batch", 4, 6, 2)),))


def read(source: Source, interface: Interface, *wanted: int) -> list[Sample]:
    numbers = np.array(wanted or range(source.count(interface)))
    return list(source.read(interface, numbers))


def code(path: Path, body: str) -> str:
    path.write_text(f"import numpy as np\nfrom factories.samples import arrays\n\n\ndef make():\n    {body}\n")
    return f"{path}:make"


def same(samples: list[Sample], numbers: list[int], seed: int = 0) -> None:
    expected = arrays(seed=seed)
    assert [int(sample.targets["logits"]) for sample in samples] == expected["logits"][numbers].tolist()
    for sample, number in zip(samples, numbers, strict=True):
        np.testing.assert_array_equal(sample.inputs["pixel_values"], expected["pixel_values"][number])


@pytest.mark.parametrize("compressed", [False, True])
def test_rows_of_an_archive_are_samples(tmp_path: Path, compressed: bool) -> None:
    (np.savez_compressed if compressed else np.savez)(tmp_path / "a.npz", **arrays(200))  # type: ignore[arg-type]
    source = open_data(tmp_path / "a.npz")
    assert (source.name, source.count(IMAGES)) == ("a.npz", 200)
    assert source.first()["pixel_values"].shape == (2, 1, 16, 16)
    numbers = [0, 63, 64, 130, 199]
    for _ in range(2):
        samples = read(source, IMAGES, *numbers)
        pixels = np.stack([sample.inputs["pixel_values"] for sample in samples])
        np.testing.assert_array_equal(pixels, arrays(200)["pixel_values"][numbers])


def test_a_directory_of_archives_holds_samples_and_batches(tmp_path: Path) -> None:
    given = arrays(5)
    np.savez(tmp_path / "1.npz", **{name: array[:3] for name, array in given.items()})  # type: ignore[arg-type]
    np.savez(tmp_path / "2.npz", **{name: array[3] for name, array in given.items()})
    np.savez(tmp_path / "3.npz", **{name: array[4:] for name, array in given.items()})  # type: ignore[arg-type]
    source = open_data(tmp_path)
    assert source.count(IMAGES) == 5
    pixels = [sample.inputs["pixel_values"] for sample in read(source, IMAGES)]
    np.testing.assert_array_equal(np.stack(pixels), given["pixel_values"])


def rows() -> Iterator[dict[str, Any]]:
    for pixels, label in zip(*arrays().values(), strict=True):
        yield {"pixel_values": pixels.tolist(), "label": int(label)}  # as a datasets.Dataset gives them


def loader() -> DataLoader[Any]:
    given = arrays()
    samples = [{name: array[i] for name, array in given.items()} for i in range(60)]
    return DataLoader(samples, batch_size=16)  # type: ignore[arg-type]  # a list is a data set


@pytest.mark.parametrize("data", [loader(), rows, loader, list(rows())])
def test_iterables_give_batches_or_samples(data: object) -> None:
    source = open_data(data)
    assert source.count(IMAGES) == 60
    for _ in range(2):
        same(read(source, IMAGES, 3, 16, 59), [3, 16, 59])


def test_a_function_of_a_file_is_run_anew_in_each_pass(tmp_path: Path) -> None:
    source = open_data(code(tmp_path / "mine.py", "yield arrays()"))
    assert (source.name, len(source.code_sha256)) == ("mine.py:make", 64)
    for _ in range(2):
        same(read(source, IMAGES, 1, 2), [1, 2])


def test_what_can_be_read_only_once_is_refused() -> None:
    with pytest.raises(UsageError, match="more than once"):
        open_data(rows())


def test_folders_of_images_are_classes(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    for number, name in enumerate(("cat", "dog", "dog")):
        (tmp_path / name).mkdir(exist_ok=True)
        image.fromarray(np.full((4, 5, 3), 40 * number, np.uint8)).save(tmp_path / name / f"{number}.png")
    (tmp_path / "dog" / "notes.txt").write_text("no image")
    source = open_data(tmp_path)
    two = Interface(IMAGES.inputs, (TensorSpec("logits", "float32", ("batch", 2)),))
    samples = read(source, two)
    assert source.classes == ("cat", "dog")
    assert [int(sample.targets["logits"]) for sample in samples] == [0, 1, 1]
    assert [(s.item.shape, int(s.item[0, 0, 0])) for s in samples] == [((4, 5, 1), 0), ((4, 5, 1), 40), ((4, 5, 1), 80)]
    named = Interface(IMAGES.inputs, IMAGES.outputs, labels=(*"abcdefgh", "dog", "cat"))
    assert [int(sample.targets["logits"]) for sample in read(source, named)] == [9, 8, 8]
    with pytest.raises(DatasetError, match=r"expected as many classes as the model has \(10\), got 2"):
        read(source, IMAGES)
    with pytest.raises(DatasetError, match=r"label 'cat': expected a class of a, b.*did you mean cats"):
        read(source, Interface(IMAGES.inputs, IMAGES.outputs, labels=(*"abcdefgh", "dogs", "cats")))
    (tmp_path / "cat" / "0.png").write_bytes(b"no image")
    with pytest.raises(DatasetError, match=r"0\.png: expected an image"):
        read(source, two)


def test_numbers_as_names_of_folders_are_the_classes(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    for name in ("9", "2"):
        (tmp_path / name).mkdir()
        image.fromarray(np.zeros((4, 5), np.uint8)).save(tmp_path / name / "0.PNG")
    assert [int(sample.targets["logits"]) for sample in read(open_data(tmp_path), IMAGES)] == [2, 9]
    image.fromarray(np.zeros((4, 5), np.uint16)).save(tmp_path / "2" / "0.PNG")
    with pytest.raises(DatasetError, match="expected an image of 8 bits"):
        read(open_data(tmp_path), IMAGES)


TABLES = {
    "a.csv": 'text,label,more\nfine,yes,1\n"bad, really",no,2\n',
    "a.jsonl": '{"text": "fine", "label": "yes"}\n\n{"text": "bad, really", "label": 0}\n',
}


@pytest.mark.parametrize("name", TABLES)
def test_tables_have_texts_and_labels(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(TABLES[name])
    samples = read(open_data(tmp_path / name), TEXTS)
    assert [(s.item, int(s.targets["logits"])) for s in samples] == [("fine", 1), ("bad, really", 0)]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"txt,label\nfine,1\n", r"line 2: expected the column 'text'.*did you mean"),
        ("a.csv", b"text,label\nfine,maybe\n", r"line 2: label 'maybe': expected a class of no, yes"),
        ("a.csv", b"text\n\xff\n", "UTF-8"),
        ("a.csv", b'text\n"fine', "expected CSV"),
        ("a.jsonl", b'{"text": "fine"}\n{', "line 2: expected a JSON object"),
        ("a.jsonl", b"[1]\n", "line 1: expected a JSON object"),
        ("a.jsonl", b'{"text": "fine", "label": [1]}\n', "label: expected a name or a number"),
    ],
)
def test_damaged_tables_are_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DatasetError, match=message):
        read(open_data(tmp_path / name), TEXTS)


def png16(levels: np.ndarray) -> bytes:
    """A 16-bit RGB PNG."""
    out = io.BytesIO()
    writer = png.Writer(levels.shape[1], levels.shape[0], greyscale=False, bitdepth=16)
    writer.write(out, levels.astype(np.uint16).reshape(len(levels), -1).tolist())
    return out.getvalue()


def test_flow_files_are_read(tmp_path: Path) -> None:
    flow = np.random.default_rng(0).integers(-100, 100, (7, 6, 2)).astype(np.float32) / 4
    (tmp_path / "a.flo").write_bytes(b"PIEH" + struct.pack("<ii", 6, 7) + flow.tobytes())
    np.testing.assert_array_equal(read_flow(tmp_path / "a.flo"), flow)
    valid = np.random.default_rng(1).integers(0, 2, (7, 6, 1))
    (tmp_path / "a.png").write_bytes(png16(np.concatenate([flow * 64 + 2**15, valid], axis=2)))
    np.testing.assert_array_equal(read_flow(tmp_path / "a.png"), np.where(valid, flow, np.nan))
    for name in ("a.flo", "a.png"):
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:30])
        with pytest.raises(DatasetError, match=name):
            read_flow(tmp_path / name)


@pytest.mark.parametrize(
    ("first", "second", "flow"),
    [
        ("a_img1.png", "a_img2.png", "a_flow.flo"),
        ("clean/x/frame_0001.png", "clean/x/frame_0002.png", "flow/x/frame_0001.flo"),
        ("image_2/000000_10.png", "image_2/000000_11.png", "flow_occ/000000_10.png"),
    ],
)
def test_pairs_of_frames_have_a_flow(tmp_path: Path, first: str, second: str, flow: str) -> None:
    image = pytest.importorskip("PIL.Image")
    truth = np.zeros((6, 8, 2), np.float32)
    truth[1:5, 1:7] = np.arange(24, dtype=np.float32).reshape(4, 6, 1)
    for number, name in enumerate((first, second, flow)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        if number < 2:
            image.fromarray(np.full((6, 8, 3), number, np.uint8)).save(tmp_path / name)
    levels = np.concatenate([truth * 64 + 2**15, np.ones((6, 8, 1))], axis=2)
    content = png16(levels) if flow.endswith(".png") else b"PIEH" + struct.pack("<ii", 8, 6) + truth.tobytes()
    (tmp_path / flow).write_bytes(content)
    (sample,) = read(open_data(tmp_path), FLOWS)
    assert [(frame.shape, int(frame[0, 0, 0])) for frame in sample.item] == [((4, 6, 3), 0), ((4, 6, 3), 1)]
    np.testing.assert_array_equal(sample.targets["flow"], truth[1:5, 1:7])


def bad(tmp_path: Path, kind: str) -> object:
    """Data that no source is made of."""
    if kind == "empty directory":
        return tmp_path
    if kind == "text":
        (tmp_path / "a.txt").write_text("")
        return tmp_path / "a.txt"
    if kind == "code":
        return code(tmp_path / "mine.py", "return 3")
    if kind == "raises":
        return code(tmp_path / "mine.py", "raise KeyError('gone')")
    if kind == "later":
        return code(tmp_path / "mine.py", "yield arrays()\n    raise KeyError('gone')")
    return {"number": 3, "absent": tmp_path / "none.npz", "no dicts": [1], "mapping": arrays()}[kind]


@pytest.mark.parametrize(
    ("kind", "error", "message"),
    [
        ("empty directory", DatasetError, "got a directory without any of these"),
        ("text", DatasetError, r"a file that ends in \.txt"),
        ("absent", UsageError, "no such file"),
        ("number", UsageError, "expected a path, file.py:function"),
        ("mapping", UsageError, "expected a path, file.py:function"),
        ("code", UsageError, "mine.py:make: expected an iterable of dicts"),
        ("raises", UsageError, r"KeyError at .*mine\.py:6"),
        ("later", DatasetError, r"KeyError at .*mine\.py:7"),
        ("no dicts", DatasetError, "list: record 0: expected a dict of arrays by name, got int"),
    ],
)
def test_data_of_no_known_kind_are_refused(
    tmp_path: Path, kind: str, error: type[PerceiverError], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        read(open_data(bad(tmp_path, kind)), IMAGES)
    assert caught.value.exit_code == (2 if error is UsageError else 3)


GOOD = {name: array[:2] for name, array in arrays().items()}


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({**GOOD, "pixels": 1}, "no input and no output 'pixels'.*did you mean pixel_values"),
        ({"logits": GOOD["logits"]}, "input pixel_values: .* is missing"),
        (
            {**GOOD, "pixel_values": GOOD["pixel_values"].astype(np.float64)},
            "pixel_values: .*got float64; cast it",
        ),
        ({**GOOD, "pixel_values": GOOD["pixel_values"][0, 0]}, "pixel_values: expected rank 4 .* or one less"),
        ({**GOOD, "pixel_values": [[1.0], [1.0, 2.0]]}, "pixel_values: expected numbers of one shape"),
        ({**GOOD, "logits": GOOD["logits"][:1]}, "logits: expected 2 rows as elsewhere, got 1"),
        ({**GOOD, "pixel_values": "text"}, "pixel_values: expected float32"),
    ],
)
def test_records_that_do_not_fit_are_refused(record: dict[str, Any], message: str) -> None:
    with pytest.raises(DatasetError, match=f"list: record 1: {message}"):
        read(open_data([GOOD, record]), IMAGES)


def test_archives_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, pixel_values=GOOD["pixel_values"], logits=GOOD["logits"][:1])
    with pytest.raises(DatasetError, match="as many samples in all arrays, got pixel_values 2, logits 1"):
        open_data(path).count(IMAGES)
    np.savez(path, pixel_values=np.asfortranarray(GOOD["pixel_values"]))
    with pytest.raises(PerceiverError, match=r"pixel_values: expected rows one after the other"):
        read(open_data(path), IMAGES)
    np.savez(path, pixel_values=np.array([{}], object))
    with pytest.raises(PerceiverError, match="pickled"):
        open_data(path).count(IMAGES)
