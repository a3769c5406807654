"""Outputs are checked before the work, and written whole or not at all."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_bundles

from perceiver_runtime.cli.main import main
from perceiver_runtime.errors import PerceiverError, UnavailableError, UsageError
from perceiver_runtime.format import arrays
from perceiver_runtime.format.outputs import check_directory, check_file, replacing
from perceiver_runtime.format.staging import check_destination

USERS = {
    "below a file": lambda place: place / "file" / "x",
    "a name too long": lambda place: place / ("x" * 300),
    "a link to itself": lambda place: place / "circle" / "x",
}
"""Paths that can't be written whatever the machine allows."""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "file").write_text("a file")
    (tmp_path / "directory").mkdir()
    (tmp_path / "circle").symlink_to("circle")
    return tmp_path


@pytest.mark.parametrize("check", [check_file, check_directory, lambda path: check_destination(path, overwrite=True)])
@pytest.mark.parametrize("case", USERS)
def test_paths_that_can_not_be_written(place: Path, check: Callable[[Path], None], case: str) -> None:
    before = sorted(place.rglob("*"))
    with pytest.raises(UsageError):
        check(USERS[case](place))
    assert sorted(place.rglob("*")) == before


@pytest.mark.parametrize("check", [check_file, check_directory, lambda path: check_destination(path, overwrite=True)])
def test_nothing_is_written_into_a_bundle(tmp_path: Path, check: Callable[[Path], None]) -> None:
    """It could not be opened any more; a file called manifest.json alone makes no bundle."""
    bundle = tiny_bundles.write(tmp_path / "bundle", tiny_bundles.full_model(), tiny_bundles.feeds())
    (tmp_path / "manifest.json").touch()
    check(tmp_path / "x")
    for inside in (bundle / "x", bundle / "golden" / "x"):
        with pytest.raises(UsageError, match=r"is inside the bundle .*bundle, which takes no other files"):
            check(inside)


def test_a_name_leaves_room_for_that_of_the_partial_file(tmp_path: Path) -> None:
    check_directory(tmp_path / ("x" * 250))
    for check in (check_file, lambda path: check_destination(path, overwrite=True)):
        with pytest.raises(UsageError, match="File name too long"):
            check(tmp_path / ("x" * 250))


def test_a_file_is_no_directory_and_the_other_way_round(place: Path) -> None:
    with pytest.raises(UsageError, match="is a directory; name a file"):
        check_file(place / "directory")
    with pytest.raises(UsageError, match="is no directory"):
        check_directory(place / "file")
    with pytest.raises(UsageError, match=r"nowhere/x.npz: No such file or directory"):
        check_file(place / "nowhere" / "x.npz")
    check_directory(place / "nowhere" / "x")
    check_file(place / "file")
    check_file(Path(os.devnull))


@pytest.mark.parametrize("check", [check_file, check_directory, lambda path: check_destination(path, overwrite=False)])
def test_a_place_that_is_not_ours(check: Callable[[Path], None]) -> None:
    """/proc takes no entries from anyone."""
    with pytest.raises(PerceiverError) as refused:
        check(Path("/proc/x"))
    assert refused.value.exit_code in (2, 4)


def test_permission(place: Path) -> None:
    (place / "directory").chmod(0o500)
    if os.access(place / "directory", os.W_OK):
        pytest.skip("this user may write everywhere")
    with pytest.raises(UnavailableError, match="Permission denied"):
        check_file(place / "directory" / "x")


def test_a_file_is_replaced_when_it_is_whole(place: Path) -> None:
    def interrupted() -> None:
        with replacing(place / "file") as partial:
            partial.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        interrupted()
    assert (place / "file").read_text() == "a file"
    (place / "link").symlink_to("file")
    with replacing(place / "link") as partial:
        partial.write_text("whole")
    assert (place / "file").read_text() == "whole"
    assert (place / "link").is_symlink()
    with replacing(place / "link", follow=False) as partial:
        partial.write_text("new")
    assert (place / "file").read_text() == "whole"
    assert not [path for path in place.iterdir() if path.name.startswith(".")]


def test_a_killed_process_leaves_the_file_as_it_was(place: Path) -> None:
    code = (
        "import os, signal, sys, numpy as np\n"
        "from pathlib import Path\n"
        "from perceiver_runtime.format import arrays\n"
        "np.lib.format.write_array = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)\n"
        "arrays.save(Path(sys.argv[1]), {'a': np.zeros(9)})\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(place / "file")], check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert (place / "file").read_text() == "a file"


def test_devices_are_written_not_replaced() -> None:
    with replacing(Path(os.devnull)) as path:
        assert path == Path(os.devnull)
    assert Path(os.devnull).is_char_device()


def test_arrays_of_any_name(tmp_path: Path) -> None:
    content = {"file": np.arange(3), "a/b": np.float16([1.5]), "mode": np.array(2)}  # type: ignore[arg-type]
    arrays.save(tmp_path / "o.npz", content)  # type: ignore[arg-type]
    loaded = np.load(tmp_path / "o.npz")
    assert {name: loaded[name].tolist() for name in loaded.files} == {k: v.tolist() for k, v in content.items()}


def test_outputs_are_checked_before_the_inputs_are_read(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for out, code in ((place / "directory", 2), (place / "file" / "o.npz", 2), (place / "none" / "o.npz", 2)):
        assert main(["run", "no-bundle", "--inputs", "no-inputs", "-o", str(out)]) == code
        assert str(out) in capsys.readouterr().err


def test_a_full_disk_leaves_what_was_there(bundle: Path, tmp_path: Path) -> None:
    """A limit on the size of files stands for the full disk."""
    np.savez(tmp_path / "feeds.npz", **tiny_bundles.feeds())  # type: ignore[arg-type]
    (tmp_path / "o.npz").write_text("old")
    code = (
        "import resource, sys; from perceiver_runtime.cli.main import main; "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100)); sys.exit(main(sys.argv[1:]))"
    )
    arguments = ["run", str(bundle), "--inputs", str(tmp_path / "feeds.npz"), "-o", str(tmp_path / "o.npz")]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 4, done.stderr
    assert "limit of a file's size" in done.stderr
    assert str(tmp_path / "o.npz") in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["feeds.npz", "o.npz"]
    assert (tmp_path / "o.npz").read_text() == "old"


def test_a_device_takes_arrays() -> None:
    arrays.save(Path(os.devnull), {"x": np.zeros((4, 4))})
    assert Path(os.devnull).is_char_device()


def test_names_of_partial_files_are_not_predictable() -> None:
    """A file in a shared folder must not be replaced through a link that was put there before."""
    forks = ("execution/lanes.py", "backends/openvino.py")  # ask which process they are in, and write nothing
    root = Path(__file__).parents[2]
    folders = ("perceiver_deploy", "exporters", "runtime/perceiver_runtime")
    for path in (path for folder in folders for path in (root / folder).rglob("*.py")):
        assert "getpid" not in path.read_text(encoding="utf-8") or any(map(path.match, forks)), path


def test_a_partial_file_that_is_swept_before_it_is_locked_is_made_again(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Removed before it is opened, or between that and the lock: either way no one else's file is written."""
    opened, flock = os.open, fcntl.flock
    removed: list[str] = []

    def early(path: Path, *arguments: Any) -> int:
        if Path(path).match(".*.new") and Path(path).exists() and not removed:
            removed.append("before it was opened")
            path.unlink()
        return opened(path, *arguments)

    def late(descriptor: int, operation: int) -> None:
        if len(removed) == 1:
            (partial,) = place.glob(".*.new")
            removed.append("before it was locked")
            partial.unlink()
        flock(descriptor, operation)

    monkeypatch.setattr(os, "open", early)
    monkeypatch.setattr(fcntl, "flock", late)
    with replacing(place / "new") as partial:
        partial.write_text("whole")
    assert len(removed) == 2
    assert (place / "new").read_text() == "whole"
    assert not [path for path in place.iterdir() if path.name.startswith(".")]
