"""The data: IDX files, the drawn sample, and the data set made of it."""

from __future__ import annotations

import gzip
import hashlib
import struct

import numpy as np
import pytest
from click.testing import CliRunner

from perceiver_deploy.datasets import DATASETS
from perceiver_deploy.datasets.fashion_mnist import LABELS, MEAN, STD, normalise
from perceiver_deploy.datasets.fashion_mnist.sample import SAMPLE, read_sample
from perceiver_runtime.errors import DatasetError, UnavailableError
from zoo_training.__main__ import main as train
from zoo_training.data.fashion_mnist import DEBIAN_DIRECTORY, TEST, balanced, read_split, write_sample
from zoo_training.data.fashion_mnist import main as draw
from zoo_training.data.idx import read_idx


def write_idx(path, array, kind=0x08):
    header = bytes((0, 0, kind, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(gzip.compress(header + array.tobytes()))


@pytest.fixture
def split(tmp_path):
    """A directory with a small training and test split of the real layout."""
    random = np.random.default_rng(0)
    for name, size in (("train", 600), ("t10k", 2100)):
        write_idx(tmp_path / f"{name}-images-idx3-ubyte.gz", random.integers(0, 256, (size, 28, 28), np.uint8))
        write_idx(tmp_path / f"{name}-labels-idx1-ubyte.gz", (np.arange(size) % 10).astype(np.uint8))
    return tmp_path


def test_idx_round_trip(tmp_path):
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    write_idx(tmp_path / "x.gz", array)
    assert np.array_equal(read_idx(tmp_path / "x.gz"), array)


# Named cases: gzip stamps the current second into its header, and an id made of it would differ between
# two processes that collect the tests.
DAMAGED = {
    "no gzip": b"not gzip",
    "empty": gzip.compress(b""),
    "float32": gzip.compress(b"\0\0\x0d\1" + struct.pack(">If", 1, 1.0)),
    "header cut off": gzip.compress(b"\0\0\x08\3" + struct.pack(">I", 1)),
    "too few values": gzip.compress(b"\0\0\x08\1" + struct.pack(">I", 5) + b"abc"),
    "too many values": gzip.compress(b"\0\0\x08\1" + struct.pack(">I", 1) + b"abc"),
    "gzip cut off": gzip.compress(b"\0\0\x08\1" + struct.pack(">I", 3) + b"abc")[:-9],
    "no deflate stream": b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + b"\xff" * 20,
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_damaged_idx_is_refused(tmp_path, content):
    (tmp_path / "x.gz").write_bytes(content)
    with pytest.raises(DatasetError, match=r"x\.gz"):
        read_idx(tmp_path / "x.gz")


def test_split_needs_as_many_labels_as_images(split):
    write_idx(split / "t10k-labels-idx1-ubyte.gz", np.zeros(9, np.uint8))
    with pytest.raises(DatasetError, match="9 images"):
        read_split(split, TEST)


@pytest.mark.parametrize("command", [draw, train])
def test_absent_data_name_the_debian_package(tmp_path, command):
    result = CliRunner().invoke(command, ["--data", str(tmp_path), "--out", str(tmp_path / "out")])
    assert result.exit_code == UnavailableError.exit_code
    assert "dataset-fashion-mnist" in result.stderr
    assert not (tmp_path / "out").exists()


def test_train_command_writes_a_checkpoint_of_the_steps_it_took(split):
    out = split / "checkpoint"
    result = CliRunner().invoke(train, ["--data", str(split), "--out", str(out), "--steps", "2"])
    assert result.exit_code == 0, result.output
    assert {path.name for path in out.iterdir()} == {"config.json", "model.safetensors"}
    assert '"2 of 2"' in (out / "config.json").read_text()
    assert "302,046 parameters" in result.stdout
    assert "step 2/2" in result.stderr


def test_drawing_is_repeatable_and_balanced(split):
    for name in ("a.npz", "b.npz"):
        assert CliRunner().invoke(draw, ["--data", str(split), "--out", str(split / name)]).exit_code == 0
    assert (split / "a.npz").read_bytes() == (split / "b.npz").read_bytes()
    sample = read_sample(split / "a.npz")
    assert np.bincount(sample.held_out.labels).tolist() == [200] * 10
    assert sorted(np.bincount(sample.calibration.labels).tolist()) == [51] * 8 + [52] * 2


def test_balanced_takes_each_image_at_most_once_in_random_order():
    labels = np.repeat(np.arange(10, dtype=np.uint8), 30)
    chosen = balanced(labels, 205, np.random.default_rng(0))
    assert len(set(chosen.tolist())) == 205
    assert not np.array_equal(chosen, np.sort(chosen))
    assert set(np.bincount(labels[chosen])) == {20, 21}


def test_shipped_sample_round_trips_to_the_same_bytes(tmp_path):
    write_sample(read_sample(), tmp_path / "again.npz")
    assert np.array_equal(read_sample(tmp_path / "again.npz").held_out.images, read_sample().held_out.images)
    assert SAMPLE.stat().st_size < 1.2e6


@pytest.mark.skipif(not DEBIAN_DIRECTORY.is_dir(), reason="dataset-fashion-mnist is not installed")
def test_shipped_sample_is_the_one_that_is_drawn(tmp_path):
    assert CliRunner().invoke(draw, ["--out", str(tmp_path / "drawn.npz")]).exit_code == 0
    drawn, shipped = read_sample(tmp_path / "drawn.npz"), read_sample()
    assert np.array_equal(drawn.held_out.images, shipped.held_out.images)
    assert np.array_equal(drawn.calibration.images, shipped.calibration.images)


@pytest.mark.parametrize("cut", [0, 100, 500_000, -30])
def test_damaged_sample_is_refused(tmp_path, cut):
    (tmp_path / "sample.npz").write_bytes(SAMPLE.read_bytes()[:cut])
    with pytest.raises(DatasetError, match=r"sample\.npz"):
        read_sample(tmp_path / "sample.npz")


def test_data_set_is_what_a_model_takes():
    data = DATASETS["fashion-mnist"]()
    (whole,) = data.scored[0].samples.batches(2000)
    calibration, held_out = next(data.calibration.batches(512)).feeds["pixel_values"], whole.feeds["pixel_values"]
    assert (calibration.shape, held_out.shape) == ((512, 1, 28, 28), (2000, 1, 28, 28))
    assert calibration.dtype == held_out.dtype == np.float32
    assert abs(held_out.mean()) < 0.05
    assert abs(held_out.std() - 1) < 0.05
    assert whole.targets["logits"].dtype == np.int64
    assert data.labels == LABELS
    assert len(set(whole.targets["logits"][:8].tolist())) > 3  # the first few are no single class


def test_calibration_and_held_out_are_disjoint():
    sample = read_sample()
    digests = [
        {hashlib.sha256(i.tobytes()).digest() for i in part.images} for part in (sample.calibration, sample.held_out)
    ]
    assert not digests[0] & digests[1]


def test_normalise_by_hand():
    images = np.zeros((1, 28, 28), np.uint8)
    images[0, 3, 5] = 255
    found = normalise(images)
    assert found.shape == (1, 1, 28, 28)
    assert found[0, 0, 3, 5] == pytest.approx((1 - MEAN) / STD, rel=1e-6)
    assert found[0, 0, 0, 0] == pytest.approx(-MEAN / STD, rel=1e-6)
