"""Files of a bundle, and its directory."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import tiny_bundles
from fuzz.targets.reading import OfBytes, OfJson, Once, typed

from perceiver_runtime import load_bundle
from perceiver_runtime.cli.report import overview, to_json
from perceiver_runtime.format import schema, strict_json
from perceiver_runtime.format.tuning import Measured, read_tuning, tuning_path, write_tuning
from perceiver_runtime.tensorrt.builder.kit import KIT_NAME, BuildKit, read_kit
from perceiver_runtime.tensorrt.sidecar import Sidecar, parse_sidecar
from perceiver_runtime.tensors import Profile, Range


def tiny(folder: Path) -> Path:
    """A whole bundle without a digest, so that what is damaged is read."""
    bundle = tiny_bundles.write(folder / "bundle", tiny_bundles.full_model(), tiny_bundles.feeds())
    return tiny_bundles.change(bundle, lambda m: None)


def manifest(folder: Path) -> Once:
    bundle = tiny(folder)

    def read(record: Any) -> None:
        (bundle / "manifest.json").write_text(json.dumps(record))
        with load_bundle(bundle) as loaded:
            to_json(overview(loaded))

    return OfJson(json.loads((bundle / "manifest.json").read_text()), read)


def manifest_bytes(folder: Path) -> Once:
    bundle = tiny(folder)

    def read(data: bytes) -> None:
        (bundle / "manifest.json").write_bytes(data)
        load_bundle(bundle).close()

    return OfBytes(((bundle / "manifest.json").read_bytes(),), read)


LONG, DEEP = "n" * 255, "d/" * 200
OTHERS = ("manifest.json", "onnx/head.onnx", "golden/sample-0.safetensors", "onnx", "golden", "new", "onnx/HEAD.onnx")
NAMES = (*OTHERS, LONG, f"onnx/{LONG}", "a\nb", "\u202etxt.exe", "\udcff", "-rf", " ", DEEP + "f", "engines/x/y.plan")
SPARSE = (1, 4096, 1 << 32, 1 << 42)


def _symlink(place: Path, chance: random.Random) -> None:
    place.symlink_to(
        chance.choice(("/etc/passwd", "/dev/zero", "head.onnx", place.name, "..", "/nowhere", "/proc/self/mem"))
    )


def _hard_link(place: Path, chance: random.Random) -> None:
    os.link(place.parents[len(place.parts) - 1 - place.parts.index("bundle") - 1] / "manifest.json", place)


def _socket(place: Path, chance: random.Random) -> None:
    os.mknod(place, 0o140644)


def _device(place: Path, chance: random.Random) -> None:
    try:
        os.mknod(place, 0o020644, os.makedev(1, chance.choice((3, 5, 7))))  # null, zero, full
    except PermissionError:  # only root makes devices
        os.mkfifo(place)


def _sparse(place: Path, chance: random.Random) -> None:
    with place.open("wb") as file:
        file.truncate(chance.choice(SPARSE))


def _unreadable(place: Path, chance: random.Random) -> None:
    place.write_bytes(b"x")
    place.chmod(0)


def _folder(place: Path, chance: random.Random) -> None:
    place.mkdir(mode=chance.choice((0o755, 0o000)))


KINDS: tuple[Callable[[Path, random.Random], None], ...] = (
    _symlink,
    _hard_link,
    lambda place, chance: os.mkfifo(place),
    _socket,
    _device,
    _sparse,
    _unreadable,
    _folder,
)


def directory(folder: Path) -> Once:
    """Special files in place of files, and in addition to them; half of them are listed in the manifest."""
    whole = tiny(folder / "whole")
    record = json.loads((whole / "manifest.json").read_text())
    bundle = folder / "bundle"

    def once(chance: random.Random) -> None:
        shutil.copytree(whole, bundle, copy_function=os.link)
        (bundle / "manifest.json").unlink()  # no other link to it
        shutil.copy(whole / "manifest.json", bundle)
        try:
            _disturb(bundle, record, chance)
            load_bundle(bundle).close()
        finally:
            _remove(bundle)

    return once


def _disturb(bundle: Path, record: Mapping[str, Any], chance: random.Random) -> None:
    name = chance.choice(NAMES)
    place = bundle / name
    try:
        _remove(place)
        place.parent.mkdir(parents=True, exist_ok=True)
        chance.choice(KINDS)(place, chance)
        listed = name != "manifest.json" and (bundle / "manifest.json").is_file()
        if listed and chance.random() < 0.5:
            size = os.lstat(place).st_size if chance.random() < 0.8 else chance.choice((0, -1, 1 << 62))
            other = {name: {"sha256": "0" * 64, "size": size}}
            (bundle / "manifest.json").write_text(json.dumps({**record, "files": {**record["files"], **other}}))
    except OSError:  # of the disturbance itself: a parent that is a file, a name too long
        pass


def _remove(place: Path) -> None:
    if place.is_dir() and not place.is_symlink():
        for parent, folders, _ in os.walk(place):
            for each in folders:
                if not (inner := Path(parent, each)).is_symlink():
                    inner.chmod(0o755)
        place.chmod(0o755)
        shutil.rmtree(place)
    elif os.path.lexists(place):
        place.unlink()


def tuning(folder: Path) -> Once:
    bundle = tiny(folder)
    write_tuning(bundle, (Measured("onnxruntime", 1, {"onnxruntime": "1"}, 1.0, 1.0, 1.0, 1.0),))
    path = tuning_path(bundle)

    def read(record: Any) -> None:
        path.write_text(json.dumps(record))
        read_tuning(bundle)

    return OfJson(json.loads(path.read_text()), read)


def kit(folder: Path) -> Once:
    bundle = tiny(folder)

    def read(record: Any) -> None:
        (bundle / KIT_NAME).write_text(json.dumps(record))
        tiny_bundles.rehash(bundle, KIT_NAME)
        with load_bundle(bundle) as loaded:
            read_kit(loaded)

    return OfJson(schema.encode(BuildKit(1, "orin-nano", "tensorrt", "10.3.0", ("8.7",), 1 << 28, 1, 1)), read)


def sidecar(folder: Path) -> Once:
    profiles = (Profile("default", {"batch": Range(1, 2, 4)}),)
    hashes, flags, products = ("0" * 64, "1" * 64), ("VERSION_COMPATIBLE",), {"fp16": 3}
    made = Sidecar(
        1, "encoder", "tensorrt", "10.3.0", ("8.7",), "linux-aarch64", *hashes, 9, profiles, flags, 1 << 30, products
    )
    return OfJson(schema.encode(made), lambda record: parse_sidecar(json.dumps(record).encode(), folder / "x"))


def json_bytes(folder: Path) -> Once:
    whole = json.dumps({"a": [1, -2.5e-3, True, None, "ä\U0001f600"], "b": {"a": [{}, []]}}).encode()
    return OfBytes((whole,), typed(strict_json.loads))
