"""`perceiver-run predict` and `classify` by the processing of a bundle: images, texts, frames and clips from files."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tiny_bundles
from PIL import Image

from perceiver_runtime.cli.main import main
from perceiver_runtime.errors import FeedError, UsageError
from perceiver_runtime.execution.opening import open_session
from perceiver_runtime.execution.session import Session
from perceiver_runtime.format import schema
from perceiver_runtime.processing.files import read_image
from perceiver_runtime.processing.fill_mask import fill_mask
from perceiver_runtime.processing.flow import FlowOptions, predict_flow
from perceiver_runtime.processing.image import ImageConfig, classify
from perceiver_runtime.processing.processor import processor_of
from perceiver_runtime.processing.text import ByteTokenizer
from perceiver_runtime.settings import (
    ClipSettings,
    FlowSettings,
    ImageSettings,
    OutputSettings,
    Processing,
    TextSettings,
)
from perceiver_runtime.tensors import TensorSpec

Stating = Callable[[Session, Processing], Path]
IMAGES = Processing(image=ImageSettings(size=(16, 16)), outputs={"logits": OutputSettings("classes", ("r", "g", "b"))})
RELEASED = ByteTokenizer()
TEXT = TextSettings(
    attention_mask="attention_mask",
    special_tokens=(*RELEASED.special_tokens[:3], "<hole>", *RELEASED.special_tokens[4:]),
    offset=6,
    prefix=(4,),
    suffix=(5,),
    mask=3,
)
TEXTS = Processing(text=TEXT, outputs={"logits": OutputSettings("tokens")})


@pytest.fixture
def stating(tmp_path: Path) -> Stating:
    """A copy of a session's bundle whose manifest states a processing."""

    def copy(session: Session, processing: Processing) -> Path:
        path = tmp_path / "bundle"
        shutil.copytree(session.bundle.path, path)
        tiny_bundles.change(path, lambda manifest: manifest.update(processing=schema.encode(processing)))
        return path

    return copy


def predicted(capsys: pytest.CaptureFixture[str], *arguments: object) -> list[dict[str, Any]]:
    assert main(["predict", *map(str, arguments), "--json", "-q"]) == 0
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return found


def refused(capsys: pytest.CaptureFixture[str], code: int, *arguments: object) -> str:
    assert main(["predict", *map(str, arguments), "-q"]) == code
    return " ".join(capsys.readouterr().err.split())


def solid(path: Path, colour: Any, size: tuple[int, int] = (20, 30)) -> Path:
    Image.new("RGB", size, colour).save(path)
    return path


def test_images_of_files(
    classifier_session: Session, stating: Stating, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = stating(classifier_session, IMAGES)
    photos = [solid(tmp_path / "green.png", (0, 250, 0)), solid(tmp_path / "red.webp", (250, 0, 0))]
    first, second = predicted(capsys, bundle, *photos, "-k", "2", "-o", tmp_path / "scores.npz")
    assert (first["item"], first["classes"]["logits"][0]["label"]) == (str(photos[0]), "g")
    assert second["classes"]["logits"][0]["label"] == "r"
    assert len(second["classes"]["logits"]) == 2
    with np.load(tmp_path / "scores.npz") as scores, open_session(bundle) as session:
        assert scores["logits"].shape == (2, 3)
        pixels = [np.asarray(Image.open(photo).convert("RGB")) for photo in photos]
        assert [row[0].label for row in classify(session, pixels, k=1)] == ["g", "r"]
    assert main(["predict", str(bundle), str(photos[0]), "-o", str(tmp_path / "a.json"), "--markdown"]) == 0
    assert "| logits | g | " in capsys.readouterr().out
    assert json.loads((tmp_path / "a.json").read_text()) == predicted(capsys, bundle, photos[0])


def test_images_are_turned_upright(
    classifier_session: Session, stating: Stating, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A crop of the upper half; the file says that its left is up."""
    left = np.zeros((16, 16, 3), np.uint8)
    left[:, :8] = 0, 0, 250
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(left).save(tmp_path / "turned.png", exif=exif)
    np.save(tmp_path / "upright.npy", np.rot90(left, 3))
    bundle = stating(classifier_session, IMAGES)
    turned, upright = predicted(capsys, bundle, tmp_path / "turned.png", tmp_path / "upright.npy")
    assert turned["classes"] == upright["classes"]


@pytest.mark.parametrize(
    ("name", "content", "code", "says"),
    [
        ("none.png", None, 2, "none.png: No such file or directory; check the path"),
        ("text.png", b"words", 3, "expected an image: cannot identify image file"),
        ("float.npy", np.zeros((4, 4, 3), np.float32), 3, r"expected image: uint8[height, width, 3], got float32[4, 4"),
        ("grey.npy", np.zeros((4, 4), np.uint8), 3, "got uint8[4, 4]; convert it to 8-bit RGB"),
        ("deep.png", np.zeros((4, 4), np.uint16), 3, "expected an image of 8 bits, got Pillow's mode I;16; convert it"),
    ],
)
def test_files_that_are_no_images_are_refused(
    classifier_session: Session,
    stating: Stating,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    content: Any,
    code: int,
    says: str,
) -> None:
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        np.save(path, content) if path.suffix == ".npy" else Image.fromarray(content).save(path)
    out = tmp_path / "out.npz"
    assert says in refused(capsys, code, stating(classifier_session, IMAGES), path, "-o", out)
    assert not out.exists()


def test_a_damaged_image_is_refused(
    classifier_session: Session, stating: Stating, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3)).astype(np.uint8)
    Image.fromarray(noise).save(tmp_path / "whole.png")
    content = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "half.png").write_bytes(content[: len(content) // 2])
    assert "half.png: expected an image" in refused(
        capsys, 3, stating(classifier_session, IMAGES), tmp_path / "half.png"
    )


def test_masks_of_a_text_are_filled_in(
    text_session: Session, stating: Stating, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = stating(text_session, TEXTS)
    (tmp_path / "text.txt").write_text("tr<hole><hole>s\n")
    (tmp_path / "latin.txt").write_bytes(b"\xe9")
    found = predicted(capsys, bundle, tmp_path / "text.txt", "--text", "gr<hole>en", "-o", tmp_path / "x.npz")
    assert [each["texts"]["logits"] for each in found] == ["green", "trees"]
    assert "expected at least one <hole>, got none" in refused(capsys, 3, bundle, "--text", "green")
    assert "expected text in UTF-8" in refused(capsys, 3, bundle, tmp_path / "latin.txt")
    with open_session(bundle) as session:
        assert fill_mask(session, "gr<hole>en").text == "green"
    fixed = isinstance(text_session.inputs[0].shape[1], int)
    with np.load(tmp_path / "x.npz") as outputs:
        assert set(outputs) == {"logits"} if fixed else {"logits/0", "logits/1"}


def test_outputs_that_no_one_describes_are_shown_by_their_shape(
    text_session: Session, stating: Stating, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = stating(text_session, Processing(text=TEXT))
    assert main(["predict", str(bundle), "--text", "gr<hole>en", "-q"]) == 0
    assert "float32[" in capsys.readouterr().out


def test_a_model_of_images_and_texts_takes_either_or_pairs(
    text_session: Session, stating: Stating, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = stating(text_session, dataclasses.replace(TEXTS, image=ImageSettings(size=(16, 16))))
    (found,) = predicted(capsys, bundle, "--text", "gr<hole>en")
    assert found["texts"]["logits"] == "green"
    photos = [solid(tmp_path / f"{colour}.png", colour) for colour in ("red", "green")]
    said = refused(capsys, 2, bundle, *photos, "--text", "gr<hole>en")
    assert "--text: expected one for each image, got 1 for 2" in said


def test_flow_between_frames(
    flow_session: Session, stating: Stating, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = stating(flow_session, Processing(flow=FlowSettings(overlap=3, scale=20.0)))
    noise = np.random.default_rng(0).integers(0, 256, (3, 20, 30, 3)).astype(np.uint8)
    for number, frame in enumerate(noise):
        np.save(tmp_path / f"{number}.npy", frame)
    frames = [tmp_path / f"{number}.npy" for number in range(3)]
    found = predicted(capsys, bundle, *frames, "-o", tmp_path / "flow.npz")
    assert [each["item"] for each in found] == [f"{frames[0]} to {frames[1]}", f"{frames[1]} to {frames[2]}"]
    expected = predict_flow(flow_session, noise[1], noise[2], FlowOptions(overlap=3))
    with np.load(tmp_path / "flow.npz") as written:
        np.testing.assert_array_equal(written["flow"][1], expected)
    assert found[1]["numbers"]["largest speed"] == [pytest.approx(np.hypot(*expected.T).max())]
    assert "expected two frames or more, between which is flow, got 1" in refused(capsys, 2, bundle, frames[0])


def test_a_clip_is_reconstructed(
    autoencoder_session: Session, stating: Stating, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs = {"label": OutputSettings("classes", tuple("abcde"))}
    bundle = stating(autoencoder_session, Processing(clip=ClipSettings(), outputs=outputs))
    video = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3)).astype(np.uint8)
    for number, frame in enumerate(video):
        np.save(tmp_path / f"{number}.npy", frame)
    with wave.open(str(tmp_path / "sound.wav"), "wb") as file:
        file.setparams((1, 2, 48000, 0, "NONE", ""))
        file.writeframes(np.arange(64, dtype="<i2").tobytes())
    frames, sound = [tmp_path / f"{number}.npy" for number in range(3)], ("--audio", tmp_path / "sound.wav")
    (found,) = predicted(capsys, bundle, *frames, *sound, "-o", tmp_path / "clip.npz")
    assert found["classes"]["label"][0]["label"] == "c"
    with np.load(tmp_path / "clip.npz") as written:
        np.testing.assert_array_equal(written["image"][0], video)
    assert "--audio: expected the clip's sound, got none" in refused(capsys, 2, bundle, *frames)
    assert "video: expected video: uint8[3, 8, 8, 3], got uint8[2" in refused(capsys, 3, bundle, *frames[:2], *sound)
    np.save(frames[1], video[1, :4])
    assert "0.npy: expected frames of one size, got several" in refused(capsys, 3, bundle, *frames, *sound)


def test_options_that_do_not_fit_the_bundle_are_refused(
    classifier_session: Session, stating: Stating, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = stating(classifier_session, IMAGES)
    assert "FILE: expected an image, got none" in refused(capsys, 2, bundle)
    assert "--text: this bundle takes image" in refused(capsys, 2, bundle, "--text", "a")
    assert "--audio: this bundle takes image" in refused(capsys, 2, bundle, "--audio", "a.wav")
    assert "ends in .json or .npz, got x.txt" in refused(capsys, 2, bundle, "a.png", "-o", "x.txt")
    bare = classifier_session.bundle.path
    assert "processing: expected how inputs are made, the model states nothing" in refused(capsys, 2, bare, "a.png")


def test_image_files_need_pillow_and_nothing_else_does(
    classifier_session: Session, stating: Stating, tmp_path: Path
) -> None:
    bundle = stating(classifier_session, IMAGES)
    np.save(tmp_path / "a.npy", np.zeros((4, 4, 3), np.uint8))
    solid(tmp_path / "a.png", "red")
    code = "import sys; sys.modules['PIL'] = None; from perceiver_runtime.cli.main import main; sys.exit(main())"

    def run(file: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", code, "predict", str(bundle), str(tmp_path / file), "-q"]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    assert run("a.npy").returncode == 0
    assert run("a.png").returncode == 4
    assert "pip install 'perceiver-runtime[images]'" in run("a.png").stderr


def test_what_no_one_states_is_said_or_refused(
    classifier_session: Session, stating: Stating, caplog: pytest.LogCaptureFixture
) -> None:
    """A bundle of an older version gets the released settings with a warning; a refusal is never replaced by them."""
    image = np.full((20, 30, 3), [9, 9, 99], np.uint8)
    assert classify(classifier_session, [image], k=1)[0][0].index == 2
    assert "does not say how images become its inputs: those of the released models are assumed" in caplog.text
    with open_session(stating(classifier_session, Processing(refusal="its processor is not known"))) as session:
        with pytest.raises(UsageError, match=r"processing: its processor is not known; give .* arrays"):
            classify(session, [image])
        with pytest.raises(UsageError, match="processing: its processor is not known"):
            processor_of(session.manifest)


def test_no_image_file_has_the_channels_of_every_model(tmp_path: Path) -> None:
    with pytest.raises(FeedError, match=r"a\.png: the model takes 4 channels, which no image file has; give \.npy"):
        read_image(solid(tmp_path / "a.png", "red"), 4)


def test_what_is_no_classifier_of_images_is_refused(
    flow_session: Session, classifier_session: Session, stating: Stating
) -> None:
    image = np.full((20, 30, 3), [9, 9, 99], np.uint8)
    assert classify(classifier_session, [image], ImageConfig(), k=1)[0][0].index == 2
    with open_session(stating(flow_session, Processing(flow=FlowSettings()))) as session:
        with pytest.raises(UsageError, match=r"bundle: expected an output of classes, got flow: float32"):
            classify(session, [image])
        with pytest.raises(UsageError, match="text: this model takes flow"):
            processor_of(session.manifest).tokenizer()
    with pytest.raises(UsageError, match=r"expected image, text, flow or clip, got none of them; give .* as arrays"):
        processor_of(Processing())
    with pytest.raises(FeedError, match="outputs: expected at least one, got none"):
        processor_of(Processing(flow=FlowSettings())).decode({})


def test_a_bundle_of_any_image_size_says_so(classifier_session: Session, stating: Stating) -> None:
    said = "pixel_values: expected a bundle of one image size, got height x width"
    with open_session(sizeless(classifier_session, stating)) as session, pytest.raises(UsageError, match=said):
        classify(session, [np.zeros((20, 30, 3), np.uint8)], ImageConfig())


def test_a_bundle_of_any_frame_size_says_so(flow_session: Session, stating: Stating) -> None:
    said = "inputs: expected a bundle of one frame size, got height x width"
    with open_session(sizeless(flow_session, stating)) as session, pytest.raises(UsageError, match=said):
        predict_flow(session, *np.zeros((2, 20, 30, 3), np.uint8))


def sizeless(session: Session, stating: Stating) -> Path:
    """The bundle with a first input whose last two dimensions are not known."""
    sizes = {"height": session.inputs[0].shape[-2], "width": session.inputs[0].shape[-1]}
    path = stating(session, Processing())
    graph = onnx.load(path / "onnx/network.onnx")
    for dimension, symbol in zip(graph.graph.input[0].type.tensor_type.shape.dim[-2:], sizes, strict=True):
        dimension.dim_param = symbol
    onnx.save(graph, path / "onnx/network.onnx")
    tiny_bundles.rehash(path, "onnx/network.onnx")

    def widen(manifest: dict[str, Any]) -> None:
        for inputs in (manifest["pipeline"]["inputs"], manifest["components"][0]["inputs"]):
            inputs[0]["shape"][-2:] = sizes
        ranges = {symbol: {"min": size, "opt": size, "max": size} for symbol, size in sizes.items()}
        manifest["profiles"][0]["dimensions"].update(ranges)

    return tiny_bundles.change(path, widen)


PIXELS = TensorSpec("pixel_values", "float32", ("batch", 3, 16, 16))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"size": (8, 8)}, r"expected to make pixel_values: float32\[batch, 3, 16, 16\], got \[3, 8, 8\]"),
        ({"channels": 1}, r"got \[1, 16, 16\] for each image; correct the checkpoint's preprocessor_config\.json"),
        ({"channels": 0}, "channels: expected 1 to 1024, got 0"),
        ({"size": (8,)}, "size: expected height and width"),
        ({"size": (1 << 20, 8)}, "size: expected height and width of 1 to 65536"),
        ({"crop": (0.0, 1.0)}, "crop: expected two positive fractions"),
        ({"mean": (0.5,), "std": (0.5,)}, "mean: expected one for each channel"),
        ({"mean": (0.5,) * 3, "std": (0.0,) * 3}, "std: expected a positive one for each mean"),
        ({"scale": float("nan")}, "scale: expected a finite number"),
        ({"filter": "sharp"}, "filter: expected one of nearest"),
        ({"shortest_edge": 4}, "expected size or shortest_edge"),
    ],
)
def test_settings_that_can_not_be_applied_are_refused(changes: dict[str, Any], says: str) -> None:
    image = dataclasses.replace(ImageSettings(size=(16, 16)), **changes)
    with pytest.raises(UsageError, match=rf"processing: image: .*{says}"):
        processor_of(Processing(image=image), (PIXELS,))


@pytest.mark.parametrize(
    ("items", "says"),
    [
        ([], "items: expected a sequence of at least one"),
        ("text", "items: expected a sequence of at least one, got str"),
        ([1.5], "item: expected an image .* or a text, got float"),
        ([{}], "item: expected image or text, got nothing"),
        ([{"sound": 1}], "item: expected image or text, got sound"),
        (["a", np.zeros((4, 4, 3), np.uint8)], "expected all with the same modalities"),
    ],
)
def test_items_that_do_not_fit_are_refused(items: Any, says: str) -> None:
    processor = processor_of(Processing(image=ImageSettings(size=(16, 16)), text=TEXT), (PIXELS,))
    with pytest.raises(FeedError, match=says):
        processor.encode(items)


def test_items_of_several_modalities_become_one_batch() -> None:
    processor = processor_of(Processing(image=ImageSettings(size=(16, 16)), text=TEXT), (PIXELS,))
    image = np.zeros((4, 4, 3), np.uint8)
    feeds = processor.encode([{"image": image, "text": "ab"}, {"text": "", "image": image}])
    assert {name: array.shape for name, array in feeds.items()} == {
        "pixel_values": (2, 3, 16, 16),
        "input_ids": (2, 4),
        "attention_mask": (2, 4),
    }


def test_pairs_of_frames_become_one_batch(flow_session: Session) -> None:
    processor = processor_of(Processing(flow=FlowSettings()), flow_session.inputs)
    frames = np.random.default_rng(0).integers(0, 256, (2, 12, 16, 3)).astype(np.uint8)
    flow = flow_session.run(processor.encode([tuple(frames)]))["flow"][0] * 20
    np.testing.assert_allclose(flow, predict_flow(flow_session, *frames, FlowOptions(overlap=3)), atol=1e-4)  # type: ignore[arg-type, call-arg]
    with pytest.raises(FeedError, match=r"inputs: expected inputs: float32\[2, 27, 12, 16\]"):
        processor.encode([tuple(frames[:, :8])])
    with pytest.raises(FeedError, match=r"expected a pair of frames, got \[3\] frames"):
        processor.encode([(frames[0],) * 3])
