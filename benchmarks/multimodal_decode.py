"""Complete output of the multimodal model: encoding once and decoding in chunks, or encoding again for each chunk.

    python benchmarks/multimodal_decode.py DIRECTORY [--chunks 2]

The released size has 804,737 output queries in 128 chunks. FLOPs are those of the bundle's graphs, matrix
products only. The complete run is measured; encoding again, as the reference implementations do, is measured for a few
chunks, on the same session and in torch eager, and extrapolated. Random weights.
Writes benchmarks/results/multimodal-decode.json.
"""

from __future__ import annotations

import argparse
import math
from collections import Counter
from pathlib import Path
from statistics import median

import numpy as np
import torch
from record import bundles, random_weights, write

from perceiver_deploy.models.multimodal import MultimodalAutoencoder, coordinates_of
from perceiver_deploy.sources.model import Model
from perceiver_deploy.sources.source import resolve
from perceiver_runtime import Session, open_session
from perceiver_runtime.benchmark.timing import Call, milliseconds
from perceiver_runtime.golden import load_golden
from perceiver_runtime.tensors import Array

TERA = 1e12
Feeds = dict[str, Array]


def chunk_of(index: int, chunks: int, config: object) -> Feeds:
    """The points of one chunk, as a share of the video and of the audio."""
    points, patches = math.prod(config.video), config.audio[0]  # type: ignore[attr-defined]
    return {
        "image_index": np.array_split(np.arange(points), chunks)[index],
        "audio_index": np.array_split(np.arange(patches), chunks)[index],
    }


def complete(session: Session, feeds: Feeds) -> tuple[float, float]:
    """Seconds of a run, and its TFLOP: each component's own count at its `opt` sizes, times its calls."""
    ran: Counter[str] = Counter()
    seconds = milliseconds(lambda: session.run(feeds, record=lambda component, _: ran.update([component]))) / 1e3
    return seconds, sum(ran[c.name] * c.flops for c in session.manifest.components) / TERA


def encoding(session: Session) -> float:
    """TFLOP from inputs to what decoding reads."""
    steps = [s for s in session.manifest.pipeline.steps if s.stage == "encode"]
    frames = session.inputs[0].shape[1]
    assert isinstance(frames, int)
    times = {s.component: frames if s.chunk else s.repeat for s in steps}
    return sum(times[c.name] * c.flops for c in session.manifest.components if c.name in times) / TERA


def eager_chunk(model: Model, feeds: Feeds, points: Feeds) -> Call:
    module = model.module
    assert isinstance(module, MultimodalAutoencoder)
    image, audio = (torch.from_numpy(np.array(feeds[name])) for name in ("image", "audio"))
    sizes = {"image": model.config.video, "audio": model.config.audio}
    asked = {n: coordinates_of(torch.from_numpy(points[f"{n}_index"]), size) for n, size in sizes.items()}

    def call() -> None:
        with torch.inference_mode():
            module(image, audio, asked)

    return call


def main(name: str = "multimodal-perceiver") -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--chunks", type=int, default=2, help="chunks of the re-encoding that are measured")
    parser.add_argument("--of", type=int, default=128, help="chunks of a complete output")
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    model = random_weights(resolve(name))
    bundle = bundles(model, given.directory, ("fp32",))["fp32"]
    with open_session(bundle, "onnxruntime", given.threads) as session:
        golden = load_golden(session.bundle)[0].feeds
        inputs = {key: golden[key] for key in ("image", "audio")}
        pieces = [{**inputs, **chunk_of(i, given.of, model.config)} for i in range(given.chunks + 1)]
        session.run(pieces[0])  # binds what the measured ones use
        again = [milliseconds(lambda p=piece: session.run(p)) for piece in pieces[1:]]
        eager = [milliseconds(eager_chunk(model, inputs, piece)) for piece in pieces]
        whole = {**inputs, **chunk_of(0, 1, model.config)}
        seconds, once = complete(session, whole)
        encode = encoding(session)
    result = {
        "threads": given.threads,
        "queries": sum(len(whole[f"{n}_index"]) for n in ("image", "audio")) + 1,
        "chunks": given.of,
        "measured_chunks": given.chunks,
        "tflop_once": once,
        "tflop_again": once + (given.of - 1) * encode,
        "seconds_once": seconds,
        "seconds_again": median(again) * given.of / 1e3,
        "seconds_again_eager": median(eager[1:]) * given.of / 1e3,
    }
    print(result)
    write("multimodal-decode", result)


if __name__ == "__main__":
    main()
