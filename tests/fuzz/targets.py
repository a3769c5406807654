"""Readers of untrusted input, each with a generator of damaged input. Right is a PerceiverError, or what is in it."""

from __future__ import annotations

import io
import json
import random
import shutil
import wave
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import tiny_bundles
from mutations import damaged, mutated

from perceiver_runtime import load_bundle, open_session
from perceiver_runtime.cli.report import overview, to_json
from perceiver_runtime.format import arrays, schema, strict_json
from perceiver_runtime.format.external_data import relocate
from perceiver_runtime.format.ranges import parse_ranges
from perceiver_runtime.format.safetensors import load_file
from perceiver_runtime.format.tuning import Measured, read_tuning, tuning_path, write_tuning
from perceiver_runtime.golden import parse_sample
from perceiver_runtime.processing.files import read_frames, read_sound, read_text
from perceiver_runtime.processing.text import ByteTokenizer
from perceiver_runtime.telemetry.tegrastats import parse_line
from perceiver_runtime.tensorrt.builder.kit import KIT_NAME, BuildKit, read_kit
from perceiver_runtime.tensorrt.sidecar import Sidecar, parse_sidecar
from perceiver_runtime.tensors import Profile, Range, TensorSpec

Once = Callable[[random.Random], object]
"""Reads one damaged input."""
LINE = (
    "RAM 3162/7620MB (lfb 4x4MB) SWAP 0/3810MB CPU [12%@1510,0%@1510,off] EMC_FREQ 3%@2133 GR3D_FREQ 10%@[1300,1300] "
    "CV0@-256C cpu@48.5C tj@50C VDD_IN 5139mW/5139mW VDD_GPU_SOC 1439mW/1439mW/1500mW"
)
ODD = ("9" * 5000, "9" * 400, ",", "", "\u0663", "-", "@", "x", "\0")
TEXT = "".join(map(chr, (9, 65, 228, 0x4E2D, 0x1F600, 0, 0xD800, 0xDFFF, 0x202E)))


def _bundle(folder: Path) -> Path:
    return tiny_bundles.write(folder / "bundle", tiny_bundles.full_model(), tiny_bundles.feeds())


def _manifest(folder: Path) -> Once:
    bundle = _bundle(folder)
    tiny_bundles.change(bundle, lambda m: None)
    whole = json.loads((bundle / "manifest.json").read_text())

    def once(chance: random.Random) -> None:
        (bundle / "manifest.json").write_text(json.dumps(mutated(whole, chance)))
        with load_bundle(bundle) as loaded:
            to_json(overview(loaded))

    return once


def _manifest_bytes(folder: Path) -> Once:
    bundle = _bundle(folder)
    whole = (bundle / "manifest.json").read_bytes()

    def once(chance: random.Random) -> None:
        (bundle / "manifest.json").write_bytes(damaged(whole, chance))
        load_bundle(bundle).close()

    return once


def _graph(folder: Path) -> Once:
    bundle = _bundle(folder)
    names = sorted(path.name for path in (bundle / "onnx").iterdir())
    whole = {name: (bundle / "onnx" / name).read_bytes() for name in names}
    feeds = tiny_bundles.feeds()

    def once(chance: random.Random) -> None:
        name = chance.choice(names)
        path = bundle / "onnx" / name
        path.write_bytes(damaged(whole[name], chance))
        tiny_bundles.rehash(bundle, f"onnx/{name}")
        try:
            with open_session(bundle, "onnxruntime", 1) as session:
                session.run(feeds)
        finally:
            path.write_bytes(whole[name])
            tiny_bundles.rehash(bundle, f"onnx/{name}")

    return once


def _external_data(folder: Path) -> Once:
    graph = onnx.load(_bundle(folder) / "onnx/head.onnx")
    (tensor,) = graph.graph.initializer
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", "weights"), ("offset", "0"), ("length", "48")):
        tensor.external_data.add(key=key, value=value)
    whole = graph.SerializeToString()
    from perceiver_runtime import BundleError

    def once(chance: random.Random) -> None:
        try:
            relocate(damaged(whole, chance), lambda data: data)
        except ValueError as error:  # as its callers do
            raise BundleError(str(error)) from error

    return once


def _safetensors_header(folder: Path) -> Once:
    whole = {
        "a": {"dtype": "F32", "shape": [2, 4], "data_offsets": [0, 32]},
        "b": {"dtype": "I64", "shape": [4], "data_offsets": [32, 64]},
        "__metadata__": {"same": "{}"},
    }

    def once(chance: random.Random) -> None:
        text = json.dumps(mutated(whole, chance)).encode()
        (folder / "x").write_bytes(len(text).to_bytes(8, "little") + text + bytes(64))
        load_file(folder / "x")

    return once


def _golden(folder: Path) -> Once:
    whole = (_bundle(folder) / "golden/sample-0.safetensors").read_bytes()
    return lambda chance: parse_sample(damaged(whole, chance), folder / "x")


def _read_arrays(path: Path) -> None:
    pairs = [] if path.suffix == ".npz" else [f"x={path}"]
    stored = arrays.stored_feeds(None if pairs else path, pairs)
    arrays.load(stored, (TensorSpec("x", "float32", ("batch", 4)),), (Profile("p", {"batch": Range(1, 1, 8)}),))


def _arrays(suffix: str) -> Callable[[Path], Once]:
    def prepare(folder: Path) -> Once:
        path, saved = folder / f"x.{suffix}", io.BytesIO()
        save = {"npy": np.save, "npz": lambda f, a: np.savez(f, x=a), "zip": lambda f, a: np.savez_compressed(f, x=a)}
        save[suffix](saved, np.ones((2, 4), np.float32))
        path = path.with_suffix(".npy" if suffix == "npy" else ".npz")
        whole = saved.getvalue()

        def once(chance: random.Random) -> None:
            path.write_bytes(damaged(whole, chance))
            _read_arrays(path)

        return once

    return prepare


def _tuning(folder: Path) -> Once:
    bundle = _bundle(folder)
    write_tuning(bundle, (Measured("onnxruntime", 1, {"onnxruntime": "1"}, 1.0, 1.0, 1.0, 1.0),))
    path = tuning_path(bundle)
    whole = json.loads(path.read_text())

    def once(chance: random.Random) -> None:
        path.write_text(json.dumps(mutated(whole, chance)))
        read_tuning(bundle)

    return once


def _kit(folder: Path) -> Once:
    bundle = _bundle(folder)
    whole = schema.encode(BuildKit(1, "orin-nano", "tensorrt", "10.3.0", ("8.7",), 1 << 28, 1, 1))

    def once(chance: random.Random) -> None:
        (bundle / KIT_NAME).write_text(json.dumps(mutated(whole, chance)))
        tiny_bundles.rehash(bundle, KIT_NAME)
        with load_bundle(bundle) as loaded:
            read_kit(loaded)

    return once


def _sidecar(folder: Path) -> Once:
    profiles = (Profile("default", {"batch": Range(1, 2, 4)}),)
    hashes, flags, products = ("0" * 64, "1" * 64), ("VERSION_COMPATIBLE",), {"fp16": 3}
    sidecar = Sidecar(
        1, "encoder", "tensorrt", "10.3.0", ("8.7",), "linux-aarch64", *hashes, 9, profiles, flags, 1 << 30, products
    )
    whole = schema.encode(sidecar)
    parse_sidecar(json.dumps(whole).encode(), folder / "x")  # or every input would be refused for the same reason
    return lambda chance: parse_sidecar(json.dumps(mutated(whole, chance)).encode(), folder / "x")


def _json(folder: Path) -> Once:
    whole = json.dumps({"a": [1, -2.5e-3, True, None, "ä\U0001f600"], "b": {"a": [{}, []]}}).encode()
    from perceiver_runtime import BundleError

    def once(chance: random.Random) -> None:
        try:
            strict_json.loads(damaged(whole, chance))
        except ValueError as error:  # as its callers do
            raise BundleError(str(error)) from error

    return once


def _tegrastats(folder: Path) -> Once:
    def once(chance: random.Random) -> None:
        line = list(LINE)
        for _ in range(chance.randrange(1, 6)):
            line[chance.randrange(len(line))] = chance.choice(
                ("9" * 5000, "9" * 400, ",", "", "\u0663", "-", "@", "x", "\0")
            )
        parse_line("".join(line), 0.0)

    return once


def _tokenizer(folder: Path) -> Once:
    odd: tuple[Any, ...] = (None, -1, 0, 1, 5, 6, 300, 2**40, 1.5, True, "", "x", (), ("a",), (1,), (4, "x"), (2**80,))

    def once(chance: random.Random) -> None:
        text = "".join(chance.choice((*TEXT, "[MASK]", "[", "abc")) for _ in range(chance.randrange(40)))
        fields = ("max_length", "offset", "padding", "prefix", "suffix", "special_tokens")
        given = {chance.choice(fields): chance.choice(odd)} if chance.random() < 0.3 else {}
        tokenizer = ByteTokenizer(**given) if not given or _fits(given) else ByteTokenizer()
        ids = tokenizer.encode([text, text[::-1]], truncation=chance.random() < 0.5)["input_ids"]
        ids[0, 0] = chance.choice((0, -1, 2**40, 261, 262))
        tokenizer.decode(ids[0])

    return once


def _fits(given: Mapping[str, Any]) -> bool:
    """Whether the fields have the types that a manifest's decoder lets through."""
    (name, value), *_ = given.items()
    if name in ("prefix", "suffix"):
        return isinstance(value, tuple) and all(type(v) is int for v in value)
    if name == "special_tokens":
        return isinstance(value, tuple) and all(isinstance(v, str) for v in value)
    return type(value) is int


def _ranges(folder: Path) -> Once:
    parts = ("batch", "=", ":", "1", "4", "16", "-", "\u0663", " ", "9" * 400, "x", ",", "\0")
    return lambda chance: parse_ranges(["".join(chance.choice(parts) for _ in range(chance.randrange(8)))])


def _images(folder: Path) -> Once:
    from PIL import Image

    pixels = Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3))
    whole = {}
    for form in ("png", "jpeg", "gif", "bmp", "tiff", "webp"):
        saved = io.BytesIO()
        pixels.save(saved, form)
        whole[form] = saved.getvalue()

    def once(chance: random.Random) -> None:
        form = chance.choice(list(whole))
        path = folder / f"x.{form}"
        path.write_bytes(damaged(whole[form], chance))
        for _ in read_frames(path):
            pass

    return once


def _sounds(folder: Path) -> Once:
    saved = io.BytesIO()
    with wave.open(saved, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(48000)
        file.writeframes(bytes(64))

    def once(chance: random.Random) -> None:
        (folder / "x.wav").write_bytes(damaged(saved.getvalue(), chance))
        read_sound(folder / "x.wav")

    return once


def _texts(folder: Path) -> Once:
    def once(chance: random.Random) -> None:
        (folder / "x.txt").write_bytes(damaged("ä\U0001f600abc\n".encode(), chance))
        read_text(folder / "x.txt")

    return once


def _replays(folder: Path) -> Once:
    from perceiver_exporters.diagnose.bisection.replay import RECORD, Replay, read_replay

    from typing import get_type_hints  # isort: skip

    simple: Mapping[Any, Any] = {str: "x", int: 1, bool: True, float: 1.0}
    whole = {name: simple.get(kind, {}) for name, kind in get_type_hints(Replay).items()}

    def once(chance: random.Random) -> None:
        (folder / RECORD).write_text(json.dumps(mutated(whole, chance)))
        read_replay(folder)

    return once


def _checkpoint(folder: Path) -> Once:
    """Config of a small checkpoint, with its right weights."""
    from perceiver_deploy.checkpoints import load
    from perceiver_deploy.zoo import ZOO_DIRECTORY

    path = Path(shutil.copytree(ZOO_DIRECTORY / "fashion-perceiver", folder / "checkpoint"))
    whole = json.loads((path / "config.json").read_text())

    def once(chance: random.Random) -> None:
        (path / "config.json").write_text(json.dumps(mutated(whole, chance)))
        load(path)

    return once


def _weights(suffix: str) -> Callable[[Path], Once]:
    def prepare(folder: Path) -> Once:
        import torch
        from safetensors.torch import save_file

        from perceiver_deploy.checkpoints.files.tensors import read_tensors

        path = folder / f"model.{suffix}"
        tensors = {"a.weight": torch.ones(2, 3), "a.bias": torch.zeros(3)}
        if suffix == "pt":
            torch.save(tensors, path)
        else:
            save_file(tensors, path)
        whole = path.read_bytes()

        def once(chance: random.Random) -> None:
            path.write_bytes(damaged(whole, chance))
            read_tensors(path)

        return once

    return prepare


def _shards(folder: Path) -> Once:
    import torch
    from safetensors.torch import save_file

    from perceiver_deploy.checkpoints.files.tensors import read_tensors

    save_file({"a.weight": torch.ones(2, 3)}, folder / "one.safetensors")
    path = folder / "model.safetensors.index.json"
    whole = {"metadata": {"total_size": 24}, "weight_map": {"a.weight": "one.safetensors"}}

    def once(chance: random.Random) -> None:
        path.write_text(json.dumps(mutated(whole, chance)))
        read_tensors(path)

    return once


TARGETS: Mapping[str, tuple[Callable[[Path], Once], int]] = {
    "manifest, structured": (_manifest, 40),
    "manifest, bytes": (_manifest_bytes, 40),
    "ONNX graphs, run": (_graph, 4),
    "external data of graphs": (_external_data, 100),
    "safetensors header": (_safetensors_header, 100),
    "golden sample, bytes": (_golden, 100),
    ".npy": (_arrays("npy"), 100),
    ".npz": (_arrays("npz"), 60),
    ".npz, compressed": (_arrays("zip"), 60),
    "tuning": (_tuning, 100),
    "build kit": (_kit, 20),
    "engine sidecar": (_sidecar, 100),
    "JSON, bytes": (_json, 200),
    "tegrastats lines": (_tegrastats, 200),
    "tokenizer": (_tokenizer, 100),
    "ranges": (_ranges, 200),
    "images": (_images, 60),
    "sounds": (_sounds, 100),
    "texts": (_texts, 100),
    "replay": (_replays, 100),
    "checkpoint config": (_checkpoint, 4),
    "checkpoint, pickle": (_weights("pt"), 40),
    "checkpoint, safetensors": (_weights("safetensors"), 60),
    "checkpoint, shard index": (_shards, 60),
}
"""Name, preparation in an empty folder, and the share of inputs: slow readers get fewer."""
