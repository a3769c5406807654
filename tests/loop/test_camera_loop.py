"""examples/camera_loop.py on small bundles, recorded frames and an imitated camera; its service's unit."""

from __future__ import annotations

import configparser
import os
import shutil
import signal
import socket
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import camera_loop
import numpy as np
import pytest
from environments import ROOT
from onnx import helper
from tiny_bundles import Model, Part, change, full_model, write
from tiny_bundles import feeds as full_feeds

from perceiver_runtime.pipeline import Pipeline, Step
from perceiver_runtime.tensors import Array, Profile, Range, TensorSpec

UNIT = ROOT / "examples" / "perceiver-camera.service"
PATIENCE_S = 60
"""Ends a test that waits for nothing; no result depends on it."""


def _bundle(directory: Path, *shape: int) -> Path:
    """Scores of frames of this shape: the mean below and above the middle grey."""
    frames = TensorSpec("frames", "uint8", ("batch", *shape))
    logits = TensorSpec("logits", "float32", ("batch", 2))

    def scores(frames: Array) -> dict[str, Array]:
        mean = frames.reshape(len(frames), -1).astype(np.float32).mean(1, keepdims=True)
        return {"logits": (mean - 127.5) * np.array([[-1, 1]], np.float32)}

    nodes = (
        helper.make_node("Cast", ["frames"], ["floats"], to=1),
        helper.make_node("Flatten", ["floats"], ["flat"]),
        helper.make_node("ReduceMean", ["flat", "one"], ["mean"], keepdims=1),
        helper.make_node("Sub", ["mean", "middle"], ["centred"]),
        helper.make_node("Mul", ["centred", "signs"], ["logits"]),
    )
    weights = {
        "one": np.array([1]),
        "middle": np.array(127.5, np.float32),
        "signs": np.array([[-1, 1]], np.float32),
    }
    model = Model(
        (Part("scores", (frames,), (logits,), nodes, weights, scores),),
        Pipeline((frames,), (logits,), (Step("scores", {"frames": "frames"}, {"logits": "logits"}, "decode"),)),
        Profile("default", {"batch": Range(1, 1, 1)}),
    )
    write(directory, model, {"frames": np.zeros((1, *shape), np.uint8)})
    outputs = {"logits": {"task": "classes", "labels": ["dark", "bright"]}}
    image = {"input": "frames", "format": "uint8"}
    return change(directory, lambda manifest: manifest.update(processing={"image": image, "outputs": outputs}))


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return _bundle(tmp_path / "bundle", 4, 6, 3)


def _frames(path: Path, *shape: int, count: int = 5) -> Path:
    np.save(path, np.full((count, *shape), 200, np.uint8))
    return path


def test_recorded_frames_are_answered_with_labels(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frames = _frames(tmp_path / "frames.npy", 4, 6, 3)
    assert camera_loop.main([str(bundle), str(frames), "--deadline", "1000"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "frames: uint8[batch, 4, 6, 3]" in lines[0]
    assert lines[1].startswith("frame ")
    assert lines[1].endswith("logits bright 100.0%")
    assert lines[-1].startswith("5 frames, ")
    assert "dropped, 0 late; latency 0." in lines[-1]


def test_images_of_a_directory(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = pytest.importorskip("PIL.Image")
    (tmp_path / "photos").mkdir()
    image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(tmp_path / "photos" / "a.png")
    assert camera_loop.main([str(bundle), str(tmp_path / "photos")]) == 0
    assert "frame 0: logits dark 100.0%" in capsys.readouterr().out


def test_a_grey_image_gets_an_axis() -> None:
    spec = TensorSpec("frames", "uint8", ("batch", 2, 3, 1))
    assert camera_loop.feeds_of(np.zeros((2, 3), np.uint8), spec)["frames"].shape == (1, 2, 3, 1)


@pytest.mark.parametrize(
    ("source", "code", "says"),
    [
        ("missing.npy", 2, "no such file"),
        ("small.npy", 3, "expected uint8 [4, 6, 3], got uint8 [2, 2, 3]"),
        ("floats.npy", 3, "got float64 [4, 6, 3]"),
        ("empty", 2, "expected images"),
        ("frames.txt", 2, "expected a device, a directory"),
        ("/dev/video0", 4, "OpenCV is not installed"),
    ],
)
def test_sources_that_give_no_frames_are_refused(
    source: str,
    code: int,
    says: str,
    bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "cv2", None)
    (tmp_path / "empty").mkdir()
    _frames(tmp_path / "small.npy", 2, 2, 3)
    np.save(tmp_path / "floats.npy", np.zeros((1, 4, 6, 3)))
    assert camera_loop.main([str(bundle), source]) == code
    assert says in capsys.readouterr().err


def test_a_bundle_that_takes_no_frames_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "full", full_model(), full_feeds())
    assert camera_loop.main([str(tmp_path / "full"), "/dev/video0"]) == 2
    assert "--fold-preprocessing" in capsys.readouterr().err


class Capture:
    """Gives two images and then none, as a camera that is unplugged."""

    def __init__(self, image: Array) -> None:
        self.image, self.left, self.settings, self.released = image, 2, {}, False

    def set(self, name: str, value: float) -> None:
        self.settings[name] = value

    def read(self) -> tuple[bool, Array | None]:
        self.left -= 1
        return (True, self.image) if self.left >= 0 else (False, None)

    def release(self) -> None:
        self.released = True


@pytest.fixture
def plug(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Puts a camera with this image in OpenCV's place."""

    def plugged(image: Array) -> Capture:
        capture = Capture(image)
        cv2 = types.SimpleNamespace(VideoCapture=lambda *arguments: capture, CAP_V4L2=200, CAP_ANY=0)
        cv2.VideoWriter = types.SimpleNamespace(fourcc=lambda *letters: "".join(letters))
        for name in ("FRAME_WIDTH", "FRAME_HEIGHT", "BUFFERSIZE", "FOURCC", "CONVERT_RGB"):
            setattr(cv2, f"CAP_PROP_{name}", name)
        monkeypatch.setitem(sys.modules, "cv2", cv2)
        return capture

    return plugged


def test_a_cameras_colours_are_turned_and_its_loss_is_an_error(
    plug: Any, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = np.zeros((4, 6, 3), np.uint8)
    image[..., 0] = 255  # OpenCV: blue
    capture = plug(image)
    spec = TensorSpec("frames", "uint8", ("batch", 4, 6, 3))
    assert next(camera_loop.open_frames("/dev/video0", spec, None, False))[0, 0].tolist() == [0, 0, 255]
    assert capture.settings == {"FRAME_WIDTH": 6, "FRAME_HEIGHT": 4, "BUFFERSIZE": 1}
    plug(image)
    assert camera_loop.main([str(bundle), "/dev/video0"]) == 4
    assert "the camera gives no frame" in capsys.readouterr().err


def test_nv12_stays_as_the_camera_gives_it(plug: Any) -> None:
    image = np.arange(36, dtype=np.uint8).reshape(6, 6)
    capture = plug(image)
    spec = TensorSpec("frames", "uint8", ("batch", 6, 6))
    frames = camera_loop.open_frames("/dev/video0", spec, None, False)
    assert np.array_equal(next(frames), image)
    assert capture.settings["FRAME_HEIGHT"] == 4
    assert (capture.settings["FOURCC"], capture.settings["CONVERT_RGB"]) == ("NV12", 0)
    frames.close()
    assert capture.released


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """The end of a socket that systemd listens at."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(PATIENCE_S)
        yield listener


def test_as_a_service_it_is_ready_with_the_first_answer_and_ends_at_sigterm(
    bundle: Path, tmp_path: Path, manager: socket.socket
) -> None:
    frames = _frames(tmp_path / "frames.npy", 4, 6, 3)
    script = ROOT / "examples" / "camera_loop.py"
    command = [*map(str, (sys.executable, script, bundle, frames)), "--rate", "50", "--repeat"]
    environment = {**os.environ, "NOTIFY_SOCKET": manager.getsockname()}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as program:
        try:
            told = [manager.recv(1000).decode() for _ in range(5)]
            program.send_signal(signal.SIGTERM)
            while told[-1] != "STOPPING=1":
                told.append(manager.recv(1000).decode())
            output, _ = program.communicate(timeout=PATIENCE_S)
        finally:
            program.kill()
    assert program.returncode == 0
    assert told[:2] == ["READY=1", "WATCHDOG=1"]
    assert told[2].startswith("STATUS=")
    assert "WATCHDOG=1" in told[3:]
    assert " answered, " in output.splitlines()[-1]


def test_a_hang_is_told(bundle: Path, manager: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    from perceiver_runtime import open_session
    from perceiver_runtime.loop import Hang

    monkeypatch.setenv("NOTIFY_SOCKET", manager.getsockname())
    given = types.SimpleNamespace(every=1, run_rate=None, deadline=None, limit=5.0)
    with open_session(bundle) as session:
        camera_loop.Camera(session, given).hangs(Hang(3, 5.0))
    assert manager.recv(1000) == b"STATUS=frame 3 hangs"


def _unit() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None, strict=True)
    parser.optionxform = str  # type: ignore[assignment]
    parser.read_string(UNIT.read_text(encoding="utf-8"))
    return parser


def test_the_unit_is_for_a_service_user_and_comes_back() -> None:
    unit = _unit()
    service = unit["Service"]
    assert set(unit) == {"DEFAULT", "Unit", "Service", "Install"}
    expected = {
        "Type": "notify",
        "User": "perceiver",
        "Restart": "always",
        "ProtectHome": "yes",
        "RestartPreventExitStatus": "2 3",
    }
    assert expected.items() <= dict(service).items()
    assert unit["Unit"]["StartLimitIntervalSec"] == "0"
    assert unit["Install"]["WantedBy"] == "multi-user.target"
    for key in ("WatchdogSec", "TimeoutStartSec", "TimeoutStopSec", "MemoryMax", "TasksMax", "LimitNOFILE"):
        assert service[key], key
    assert "/home" not in UNIT.read_text(encoding="utf-8")
    assert "~" not in UNIT.read_text(encoding="utf-8")
    assert int(service["WatchdogSec"]) > float(service["ExecStart"].split("--limit ")[1].split()[0])


def test_the_units_commands_parse() -> None:
    from perceiver_runtime.cli.main import _parser

    service = _unit()["Service"]
    verify, run = service["ExecStartPre"].split(), service["ExecStart"].split()
    _parser().parse_args(verify[1:])
    assert run[1] == "/opt/perceiver/camera_loop.py"
    assert camera_loop.parser().parse_args(run[2:]).backend == "tensorrt"


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not installed")
    here = tmp_path / UNIT.name
    text = UNIT.read_text(encoding="utf-8")
    for name in ("python", "perceiver-run"):
        text = text.replace(f"/opt/perceiver/venv/bin/{name}", sys.executable)
    here.write_text(text, encoding="utf-8")
    done = subprocess.run([analyze, "verify", here], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
