from __future__ import annotations

import ctypes
import errno
import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest

from perceiver_exporters import export
from perceiver_exporters.component import Blueprint
from perceiver_runtime.bundle import load_bundle
from perceiver_runtime.errors import BundleError, UsageError
from perceiver_runtime.format import staging
from perceiver_runtime.format.staging import check_destination, staged
from perceiver_runtime.manifest import MANIFEST_NAME

from .conftest import Bundle

KILLS = 4


def leftovers(destination: Path) -> list[str]:
    return [p.name for p in destination.parent.iterdir() if p.name != destination.name]


def is_valid(destination: Path) -> bool:
    try:
        load_bundle(destination)
    except BundleError:
        return False
    return True


def export_forever(blueprint: Blueprint, tracer: export.Tracer, destination: Path, started: int) -> None:
    """In a child process: export again and again, telling the parent when the first one begins."""
    os.write(started, b"x")
    while True:
        export.export_bundle(blueprint, destination, overwrite=True, tracer=tracer)


def kill_one(blueprint: Blueprint, tracer: export.Tracer, destination: Path, delay: float) -> None:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            export_forever(blueprint, tracer, destination, writer)
        finally:
            os._exit(1)
    os.read(reader, 1)
    time.sleep(delay)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    os.close(reader)
    os.close(writer)
    assert os.WIFSIGNALED(status), "the child ended by itself: an export failed"


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_killed_export_leaves_no_half_bundle(blueprint: Blueprint, tracer: export.Tracer, tmp_path: Path) -> None:
    """Killed while the first export runs the destination is absent or whole; later it is whole.

    Exports take cached traces, so that kills fall into measuring and writing; some must hit, or this shows nothing.
    """
    moments = random.Random(0)
    begin = time.perf_counter()
    export.export_bundle(blueprint, tmp_path / "timed", tracer=tracer)
    duration = time.perf_counter() - begin
    interrupted = 0
    for i in range(KILLS):
        destination = tmp_path / str(i) / "bundle"
        destination.parent.mkdir()
        kill_one(blueprint, tracer, destination, moments.uniform(0.0, 2.5 * duration))
        assert is_valid(destination) == destination.exists()
        interrupted += bool(leftovers(destination))
        export.export_bundle(blueprint, destination, overwrite=True, tracer=tracer)
        assert is_valid(destination)
        assert leftovers(destination) == []
    assert interrupted > 0


def test_the_destination_appears_only_after_the_manifest_is_written(
    tmp_path: Path, blueprint: Blueprint, tracer: export.Tracer
) -> None:
    """At exact points: after every text, the last of them the manifest, the destination still does not exist."""
    seen: list[bool] = []
    destination = tmp_path / "bundle"
    write = Path.write_text

    def spy(path: Path, *args: object, **options: object) -> int:
        count = write(path, *args, **options)  # type: ignore[arg-type]
        seen.append(destination.exists())
        return count

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "write_text", spy)
        export.export_bundle(blueprint, destination, tracer=tracer)
    assert seen == [False, False, False]  # the precision report, the card, then the manifest
    assert is_valid(destination)


def test_an_existing_bundle_is_refused_and_untouched(bundle: Bundle) -> None:
    path, _ = bundle("fp32")
    before = (path / MANIFEST_NAME).read_bytes()
    with pytest.raises(UsageError, match="exists; choose another directory"):
        bundle("fp32")
    assert (path / MANIFEST_NAME).read_bytes() == before


def test_overwriting_replaces_the_bundle_whole(bundle: Bundle) -> None:
    path, _ = bundle("fp32")
    (path / "onnx" / "stale.onnx").write_bytes(b"old")
    bundle("fp32", overwrite=True)
    assert is_valid(path)
    assert not (path / "onnx" / "stale.onnx").exists()
    assert leftovers(path) == []


def test_the_old_bundle_is_valid_until_the_new_one_is_complete(bundle: Bundle) -> None:
    path, _ = bundle("fp32")

    def fail_halfway() -> None:
        with staged(path, overwrite=True) as partial:
            (partial / "half").write_bytes(b"new")
            assert is_valid(path)
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        fail_halfway()
    assert is_valid(path)
    assert leftovers(path) == []


@pytest.mark.parametrize("content", ["file", "directory", "link"])
def test_what_is_no_bundle_is_never_overwritten(tmp_path: Path, content: str) -> None:
    destination = tmp_path / "precious"
    if content == "file":
        destination.write_text("mine")
    elif content == "link":
        (tmp_path / "elsewhere").mkdir()
        destination.symlink_to(tmp_path / "elsewhere")
    else:
        destination.mkdir()
        (destination / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"overwritten"), staged(destination, overwrite=True):
        pytest.fail("must refuse before anything is written")
    assert destination.exists()


def test_a_full_disk_leaves_nothing(
    blueprint: Blueprint, tracer: export.Tracer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Path.write_bytes

    def full(path: Path, data: bytes) -> int:
        if path.name == "decoder.onnx":
            write(path, data[: len(data) // 2])
            raise OSError(28, "No space left on device", str(path))
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        export.export_bundle(blueprint, tmp_path / "bundle", tracer=tracer)
    assert list(tmp_path.iterdir()) == []


def test_partials_of_the_living_are_kept_and_of_the_dead_removed(tmp_path: Path) -> None:
    dead = tmp_path / ".bundle.0badcafe.partial"
    dead.mkdir()
    (dead / "file").write_text("x")
    other = tmp_path / ".bundle2.0badcafe.partial"
    other.mkdir()
    with staged(tmp_path / "bundle") as living:
        assert not dead.exists()
        with staged(tmp_path / "bundle", overwrite=True) as second:
            assert living.exists()
            (second / MANIFEST_NAME).write_text("{}")
        with pytest.raises(UsageError, match="exists"), staged(tmp_path / "bundle"):
            pass
        (tmp_path / "bundle" / MANIFEST_NAME).unlink()
        (tmp_path / "bundle").rmdir()
    assert other.exists()


def test_swap_where_the_file_system_cannot_exchange(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class WithoutExchange:
        """A C library from before renameat2."""

    monkeypatch.setattr(staging.ctypes, "CDLL", lambda *_, **__: WithoutExchange())
    destination = tmp_path / "bundle"
    for text in ("old", "new"):
        with staged(destination, overwrite=True) as partial:
            (partial / MANIFEST_NAME).write_text(text)
    assert (destination / MANIFEST_NAME).read_text() == "new"
    assert leftovers(destination) == []


def test_a_bundle_that_a_killed_export_put_aside_is_back_at_the_next(tmp_path: Path) -> None:
    destination, aside = tmp_path / "bundle", tmp_path / ".bundle.0badcafe.replaced"
    aside.mkdir()
    (aside / MANIFEST_NAME).write_text("old")
    with pytest.raises(UsageError, match="exists"), staged(destination):
        pytest.fail("must refuse before anything is written")
    assert (destination / MANIFEST_NAME).read_text() == "old"
    shutil.copytree(destination, aside)
    with staged(destination, overwrite=True) as partial:
        (partial / MANIFEST_NAME).write_text("new")
    assert (destination / MANIFEST_NAME).read_text() == "new"
    assert leftovers(destination) == []


class RefusingExchange:
    """A C library whose renameat2 answers with an error."""

    def __init__(self, code: int) -> None:
        self.code = code

    def renameat2(self, *_: object) -> int:
        ctypes.set_errno(self.code)
        return -1


def put(destination: Path, text: str) -> None:
    with staged(destination, overwrite=True) as partial:
        (partial / MANIFEST_NAME).write_text(text)


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOSYS])
def test_a_file_system_that_refuses_to_exchange_still_gets_the_new_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    monkeypatch.setattr(staging.ctypes, "CDLL", lambda *_, **__: RefusingExchange(code))
    for text in ("old", "new"):
        put(tmp_path / "bundle", text)
    assert (tmp_path / "bundle" / MANIFEST_NAME).read_text() == "new"
    assert leftovers(tmp_path / "bundle") == []


def test_an_exchange_that_fails_keeps_the_old_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    destination = tmp_path / "bundle"
    put(destination, "old")
    monkeypatch.setattr(staging.ctypes, "CDLL", lambda *_, **__: RefusingExchange(errno.EIO))
    with pytest.raises(OSError, match=r"Input/output error.*bundle"):
        put(destination, "new")
    assert (destination / MANIFEST_NAME).read_text() == "old"
    assert leftovers(destination) == []


def test_a_bundle_put_aside_is_back_when_the_new_one_can_not_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    destination = tmp_path / "bundle"
    put(destination, "old")
    rename = Path.rename

    def failing(self: Path, target: Path) -> Path:
        if self.name.endswith(".partial"):
            raise OSError(errno.EIO, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(staging.ctypes, "CDLL", lambda *_, **__: RefusingExchange(errno.EINVAL))
    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(OSError, match="Input/output error"):
        put(destination, "new")
    assert (destination / MANIFEST_NAME).read_text() == "old"
    assert leftovers(destination) == []


def test_a_partial_directory_that_is_swept_before_it_is_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process may take one without a lock for one whose process has died."""
    locked, swept = staging.locked, list[Path]()

    def late(path: Path, kind: int) -> int | None:
        if not swept:
            swept.append(path)
            path.rmdir()
        return locked(path, kind)

    monkeypatch.setattr(staging, "locked", late)
    put(tmp_path / "bundle", "new")
    assert len(swept) == 1
    assert (tmp_path / "bundle" / MANIFEST_NAME).read_text() == "new"


def test_a_destination_without_a_name_is_refused() -> None:
    with pytest.raises(UsageError, match="/: expected the path of a new directory"):
        check_destination(Path("/"), overwrite=True)
