"""A bundle from elsewhere runs nothing and writes nothing outside: stray files, and names that are paths."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_bundles import change

from perceiver_runtime import BundleError, UsageError, load_bundle
from perceiver_runtime.cli.main import main
from perceiver_runtime.format.names import MAX_LENGTH, check_name
from perceiver_runtime.format.outputs import replacing
from perceiver_runtime.format.staging import staged

STRAY = "from pathlib import Path\nPath(__file__).with_name('executed').touch()\nraise SystemExit(99)\n"
PLACES = ("numpy.py", "golden/notes.txt", "onnx/extra.data", "engines/x/y.plan", "numpy/__init__.py", "kit.json")
PATHS = ("..", ".", "a/b", "../../../home", "/etc", "a\\b")
NAMES = (*PATHS, "", "a\0b", "a\nb", "\x1b[31m", ".hidden", "-option", "\u00e9", "x" * (MAX_LENGTH + 1))


@pytest.mark.parametrize("place", PLACES)
def test_unlisted_files_are_refused_everywhere(copy: Path, place: str) -> None:
    (copy / place).parent.mkdir(parents=True, exist_ok=True)
    (copy / place).write_text(STRAY)
    with pytest.raises(BundleError, match="not listed in the manifest; remove it"):
        load_bundle(copy)


@pytest.mark.parametrize("target", ["/", "absent", "."])
def test_unlisted_links_are_refused(copy: Path, target: str) -> None:
    (copy / "numpy").symlink_to(target)
    with pytest.raises(BundleError, match="not listed in the manifest; remove it"):
        load_bundle(copy)


def test_hidden_files_at_the_top_and_files_beside_are_local(copy: Path) -> None:
    """What version control and downloaders leave there. Nothing here reads it, and no module has such a name."""
    (copy / ".gitattributes").write_text("*.onnx filter=lfs")
    (copy / ".cache/huggingface").mkdir(parents=True)
    (copy / ".cache/huggingface/CACHEDIR.TAG").touch()
    (copy / "engines").mkdir()
    copy.with_name("copy.tuning.json.bak").touch()
    load_bundle(copy)


def test_deep_directories_are_looked_through(copy: Path) -> None:
    place = copy / "golden"
    for _ in range(200):
        place /= "d"
    place.mkdir(parents=True)
    load_bundle(copy)
    (place / "numpy.py").touch()
    with pytest.raises(BundleError, match="not listed"):
        load_bundle(copy)


@pytest.mark.parametrize("module", ["numpy", "json", "dataclasses", "hashlib", "argparse"])
@pytest.mark.parametrize("arguments", [["-m", "perceiver_runtime"], ["-mperceiver_runtime"]])
def test_run_inside_a_bundle(copy: Path, module: str, arguments: list[str]) -> None:
    """The bundle is refused; what lies in it is not executed."""
    (copy / f"{module}.py").write_text(STRAY)
    done = subprocess.run(
        [sys.executable, *arguments, "inspect", "."], cwd=copy, capture_output=True, text=True, check=False
    )
    assert not (copy / "executed").exists()
    assert done.returncode == 3, done.stderr
    assert f"{module}.py" in done.stderr


def test_the_working_directory_stays_for_other_programs(tmp_path: Path) -> None:
    """Only `-m perceiver_runtime` gives it up."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/__init__.py").write_text("import perceiver_runtime\n")
    (tmp_path / "mine/__main__.py").write_text("import sibling\n")
    (tmp_path / "sibling.py").write_text("print('found')\n")
    for arguments in (["-m", "mine"], ["-c", "import perceiver_runtime, sibling"], ["-m", "mine", "-m", "sibling"]):
        done = subprocess.run([sys.executable, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.stdout == "found\n", done.stderr


@pytest.mark.parametrize("name", NAMES)
def test_names_that_are_no_names(copy: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match="expected letters"):
        check_name(name, "target", UsageError)
    before = (copy / "manifest.json").read_bytes()
    edits: tuple[Any, ...] = (lambda m: m.update(target=name), lambda m: m["components"][0].update(name=name))
    for edit in edits:
        (copy / "manifest.json").write_bytes(before)
        change(copy, edit)
        with pytest.raises(BundleError, match="expected letters"):
            load_bundle(copy)
        assert main(["inspect", str(copy)]) == 3
        assert "\x1b" not in capsys.readouterr().err


def test_names_that_are() -> None:
    for name in ("cpu", "jetson-orin", "image_encoder", "block.2", "x" * MAX_LENGTH, "0", "_"):
        assert check_name(name, "target") == name


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_files_have_the_modes_that_the_user_asks_for(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        with replacing(tmp_path / "file") as file:
            file.write_bytes(b"content")
        with staged(tmp_path / "made") as partial:
            (partial / "manifest.json").touch()
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o666 & ~umask
    assert (tmp_path / "made").stat().st_mode & 0o777 == 0o777 & ~umask


def _refusing(path: Path, opened: Callable[..., int]) -> Callable[..., int]:
    def open_others(name: Any, *arguments: Any, **options: Any) -> int:
        if name == path:
            raise PermissionError(errno.EACCES, "Permission denied", str(name))
        return opened(name, *arguments, **options)

    return open_others


@pytest.mark.parametrize("kind", ["file", "link", "loop", "link to a directory", "another user's"])
def test_stray_names_do_not_stand_in_the_way(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Named as a partial directory of a killed export, but nothing that an export would make."""
    stray, kept = tmp_path / ".out.0123abcd.partial", tmp_path / "kept"
    kept.mkdir()
    (kept / "content").touch()
    if kind == "file":
        stray.touch()
    elif kind == "another user's":
        stray.mkdir(mode=0)
        monkeypatch.setattr(os, "open", _refusing(stray, os.open))  # root could open it
    else:
        stray.symlink_to({"link": tmp_path / "absent", "loop": stray, "link to a directory": kept}[kind])
    with staged(tmp_path / "out") as partial:
        np.save(partial / "x.npy", np.zeros(1))
    assert (tmp_path / "out/x.npy").is_file()
    assert (kept / "content").is_file()
