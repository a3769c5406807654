"""Whatever a file holds, its reader answers with a PerceiverError or with what is in it."""

from __future__ import annotations

import io
import json
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_bundles
from mutations import NESTED, damaged, mutated

from perceiver_runtime.errors import BundleError, FeedError, PerceiverError, UsageError
from perceiver_runtime.format import arrays, schema
from perceiver_runtime.format.safetensors import load_file
from perceiver_runtime.manifest import Manifest
from perceiver_runtime.telemetry.tegrastats import parse_line
from perceiver_runtime.tensorrt.dialect import version_of
from perceiver_runtime.tensors import Profile, Range, TensorSpec

EXAMPLES = 300


def _typed(call: Callable[[], object]) -> None:
    try:
        call()
    except PerceiverError as error:
        assert str(error)  # noqa: PT017 - success is right too


def test_manifests(bundle: Path) -> None:
    whole = json.loads((bundle / "manifest.json").read_text())
    for seed in range(EXAMPLES):
        text = json.dumps(mutated(whole, random.Random(seed)))
        _typed(lambda text=text: schema.decode(Manifest, json.loads(text)))


def test_numbers_beyond_a_double() -> None:
    with pytest.raises(BundleError, match="a number that a double holds"):
        schema.decode(float, 10**400, "x")
    with pytest.raises(BundleError, match="expected str"):
        schema.decode(str, NESTED, "x")


def test_repetitions_have_a_bound(copy: Path) -> None:
    from perceiver_runtime import load_bundle

    tiny_bundles.change(copy, lambda m: [s.update(repeat=10**12) for s in m["pipeline"]["steps"] if s["repeat"] > 1])
    with pytest.raises(BundleError, match="expected 1 to 10000"):
        load_bundle(copy)


def _safetensors(header: Any, data: bytes = bytes(64)) -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def test_safetensors(tmp_path: Path) -> None:
    whole = {
        "a": {"dtype": "F32", "shape": [2, 4], "data_offsets": [0, 32]},
        "b": {"dtype": "I64", "shape": [4], "data_offsets": [32, 64]},
        "__metadata__": {"same": "{}"},
    }
    path = tmp_path / "x.safetensors"
    for seed in range(EXAMPLES):
        path.write_bytes(_safetensors(mutated(whole, random.Random(seed))))
        _typed(lambda: load_file(path))


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": ["F32"], "shape": [], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [1] * 65, "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [0, 2**63, 2**63], "data_offsets": [0, 0]},
        {"dtype": "F32", "shape": [2**40, 0], "data_offsets": [0, 0]},
    ],
)
def test_safetensors_that_numpy_can_not_hold(tmp_path: Path, entry: dict[str, Any]) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(_safetensors({"a": entry}, bytes(entry["data_offsets"][1])))
    _typed(lambda: load_file(path))


SPEC = TensorSpec("x", "float32", ("batch", 4))
PROFILE = Profile("p", {"batch": Range(1, 1, 8)})


def _read(path: Path) -> None:
    pairs = [] if path.suffix == ".npz" else [f"x={path}"]
    stored = arrays.stored_feeds(None if pairs else path, pairs)
    arrays.load(stored, (SPEC,), (PROFILE,))


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_archives(tmp_path: Path, compression: int) -> None:
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", compression) as archive, archive.open("x.npy", "w") as entry:
        np.lib.format.write_array(entry, np.ones((2, 4), np.float32))
    path = tmp_path / "x.npz"
    path.write_bytes(whole.getvalue())
    _read(path)
    for seed in range(EXAMPLES):
        path.write_bytes(damaged(whole.getvalue(), random.Random(seed)))
        _typed(lambda: _read(path))
    for flag in range(8):  # among them: encrypted, patched data, strong encryption
        data = bytearray(whole.getvalue())
        for record in (data.index(b"PK\x03\x04") + 6, data.index(b"PK\x01\x02") + 8):
            data[record] |= 1 << flag
        path.write_bytes(bytes(data))
        _typed(lambda: _read(path))


def test_single_arrays(tmp_path: Path) -> None:
    whole = io.BytesIO()
    np.save(whole, np.ones((2, 4), np.float32))
    path = tmp_path / "x.npy"
    for seed in range(2 * EXAMPLES):
        path.write_bytes(damaged(whole.getvalue(), random.Random(seed)))
        _typed(lambda: _read(path))


def _npy(header: str, data: bytes = b"") -> bytes:
    text = header.ljust(117).encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (_npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,), }"), "does not fit the 0 bytes"),
        (_npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 4), }"), "does not fit|expected arrays"),
        (_npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", bytes(8)), "pickled objects"),
        (_npy("{'descr': '<f4', 'fortran_order': False, 'shape': (9, 4), }", bytes(144)), "batch at most 8"),
        (_npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1, 4), }", bytes(32)), r"got float64\[1, 4\]"),
        (_npy("{'descr': '<f4', 'shape': ((((((((("), "expected arrays saved by numpy"),
        (b"\x93NUMPY\x03\x00" + bytes(200), "expected version 1 or 2"),
        (b"", "expected arrays saved by numpy"),
    ],
)
def test_headers_are_held_against_the_input(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "x.npy").write_bytes(content)
    with pytest.raises(FeedError, match=message):
        _read(tmp_path / "x.npy")


def test_a_bomb_is_refused_by_its_header(tmp_path: Path) -> None:
    """A few kilobytes that would unpack to gigabytes: the shape is read, the data never is."""
    path = tmp_path / "bomb.npz"
    rows = 1 << 16
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("x.npy", "w") as entry:
        np.lib.format.write_array(entry, np.zeros((rows, 4), np.float32))
    with pytest.raises(FeedError, match="batch at most 8"):
        _read(path)


def test_an_archive_with_a_name_twice(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    content = _npy("{'descr': '<f4', 'fortran_order': False, 'shape': (0, 4), }")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", content)
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("x.npy", content)
    with pytest.raises(FeedError, match=r"x\.npz: a name occurs twice in the archive"):
        _read(path)


def test_arrays_and_archives_are_not_mixed_up(tmp_path: Path) -> None:
    np.savez(tmp_path / "all.npz", x=np.zeros((1, 4), np.float32))
    np.save(tmp_path / "x.npy", np.zeros((1, 4), np.float32))
    with pytest.raises(
        FeedError, match=r"expected an \.npy file of one array, got an archive; use --inputs .*all\.npz"
    ):
        arrays.stored_feeds(None, [f"x={tmp_path / 'all.npz'}"])
    with pytest.raises(UsageError, match="--input x: given twice"):
        arrays.stored_feeds(tmp_path / "all.npz", [f"x={tmp_path / 'x.npy'}"])


def test_rows_of_arrays_that_have_none_or_fewer(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    np.save(path, np.float32(1))
    (number,) = arrays.stored_feeds(None, [f"x={path}"]).values()
    with pytest.raises(FeedError, match="expected an array of samples, got a single number"):
        next(number.rows(2))
    np.save(path, np.arange(20, dtype=np.float32).reshape(5, 4))
    (five,) = arrays.stored_feeds(None, [f"x={path}"]).values()
    assert [piece.tolist() for piece in five.rows(3)] == [np.load(path)[:3].tolist(), np.load(path)[3:].tolist()]
    path.write_bytes(path.read_bytes()[:-1])  # after its header was checked
    pieces = five.rows(3)
    assert next(pieces).shape == (3, 4)
    with pytest.raises(FeedError, match="expected 5 rows, got fewer; copy the file again"):
        next(pieces)


LINES = (
    "RAM 2465/7620MB (lfb 8x4MB) SWAP 0/3810MB CPU [3%@1510] EMC_FREQ 0%@2133 GR3D_FREQ 10%@[1300,1300] "
    "cpu@48.1C VDD_IN 5139mW/5139mW",
)


def test_lines_of_tegrastats() -> None:
    for seed in range(EXAMPLES):
        chance = random.Random(seed)
        line = list(LINES[0])
        for _ in range(chance.randrange(1, 5)):
            place = chance.randrange(len(line))
            line[place] = chance.choice(("9" * 5000, "9" * 400, ",", "", "٣", "-", "@", "x"))
        text = "".join(line)
        _typed(lambda text=text: parse_line(text, 0.0))
    with pytest.raises(FeedError, match="expected numbers"):
        parse_line(f"RAM {'9' * 5000}/7620MB", 0.0)
    with pytest.raises(FeedError, match="expected numbers"):
        parse_line("RAM 1/2MB GR3D_FREQ 10%@[,1300]", 0.0)


@pytest.mark.parametrize("text", ["8", "", "x.y", "8.", "9" * 5000 + ".1", "-1.2"])
def test_versions_of_tensorrt(text: str) -> None:
    assert version_of("10.16.1.11") == (10, 16)
    with pytest.raises(BundleError, match="TensorRT version"):
        version_of(text)
