"""Write docs/hybrid.md: parity and accuracy of the shipped hybrid models at every precision.

python benchmarks/hybrid_parity.py > docs/hybrid.md
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from perceiver_deploy.datasets.emoji import decode
from perceiver_deploy.datasets.emoji.dataset import feeds
from perceiver_deploy.datasets.emoji.sample import read_sample
from perceiver_deploy.datasets.emoji.source import concept
from perceiver_deploy.evaluation import evaluate_bundle
from perceiver_deploy.exporting import export
from perceiver_deploy.metrics import evaluate_regression
from perceiver_deploy.models.hybrid import Hybrid
from perceiver_deploy.models.hybrid.decoder import greedy
from perceiver_deploy.source import batches, resolve
from perceiver_runtime import Session, open_session, verify
from perceiver_runtime.compare import ParityReport
from perceiver_runtime.tensors import Array

MODELS = ("emoji-namer", "language-identifier")
BATCH = 64
PRECISIONS = ("fp32", "fp16", "int8")


@dataclass(frozen=True)
class Part:
    """A row of the specification: its module, the components of a bundle that hold it, and the test that covers it."""

    row: str
    what: str
    module: str
    components: tuple[str, ...]
    test: str


PARTS = (
    Part("S1", "CNN encoder", "cnn.py", ("image_encoder",), "test_convolutional_encoder_is_its_layers"),
    Part("S2", "recurrent encoder", "recurrent_encoder.py", ("text_encoder",), "test_recurrent_encoder_equals_packed"),
    Part("S3", "scaled sinusoidal positions", "positions.py", ("image_encoder", "text_encoder"), "test_positions"),
    Part("S4", "channel-wise attention", "channel_attention.py", ("image_encoder",), "test_channel_attention"),
    Part("S5", "frequency-wise attention", "frequency_attention.py", ("image_encoder",), "test_frequency_attention"),
    Part("S6", "channel-wise linear", "channel_linear.py", ("image_encoder",), "test_channel_linear_groups"),
    Part("S7", "feature interaction", "interaction.py", ("encoder",), "test_interaction_*"),
    Part("S8", "recurrent decoder", "decoder.py", ("name_begin", "name_step"), "test_greedy_generation_equals_pytorch"),
    Part("S9", "one trunk, several heads", "model.py", ("processor_block",), "test_fine_tuning_*"),
    Part("S10", "sizes by config", "config.py", (), "test_every_size_is_config"),
    Part("S11", "modalities and tasks", "heads.py", ("kind_head", "match_head", "version_head"), "test_missing_*"),
    Part("S12", "evaluation", "../../metrics.py", (), "tests/training/test_metrics.py"),
)


def main() -> None:
    """Export, verify and evaluate both models, and print the page."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        bundles = {(m, p): Path(folder) / f"{m}-{p}" for m in MODELS for p in PRECISIONS}
        for (model, precision), path in bundles.items():
            export(model, path, precision=precision)
        print("\n".join(_page(bundles)))


def _page(bundles: dict[tuple[str, str], Path]) -> Iterator[str]:
    yield "# The hybrid family\n"
    yield "Made by `python benchmarks/hybrid_parity.py` on ONNX Runtime, CPU. Golden samples are held-out data.\n"
    yield "All components build with TensorRT-RTX at each precision: see the table in [tensorrt.md](tensorrt.md).\n"
    yield "## Parts: the worst relative L2 error of their components on reference inputs (tolerance)\n"
    yield f"| Row | Part | Module (`models/hybrid/`) | Components | {' | '.join(PRECISIONS)} | Test |"
    yield f"|---|---|---|---|{'---|' * len(PRECISIONS)}---|"
    reports = {p: verify(bundles[MODELS[0], p], threads=1).reports for p in PRECISIONS}
    for part in PARTS:
        cells = [_worst(reports[p], part.components) for p in PRECISIONS]
        names = ", ".join(part.components) or "-"
        yield f"| {part.row} | {part.what} | `{part.module}` | {names} | {' | '.join(cells)} | `{part.test}` |"
    yield "\n## Accuracy on held-out data: PyTorch, and the bundles\n"
    yield "| Model | Samples | Metric | PyTorch | " + " | ".join(PRECISIONS) + " |"
    yield f"|---|---|---|---|{'---|' * len(PRECISIONS)}"
    for model in MODELS:
        yield from _classified(model, [bundles[model, p] for p in PRECISIONS])
    yield from _emoji([bundles[MODELS[0], p] for p in PRECISIONS])


def _worst(reports: tuple[ParityReport, ...], components: tuple[str, ...]) -> str:
    own = [r for r in reports if r.component in components and r.mode == "teacher-forced"]
    if not own:
        return "-"
    worst = max(own, key=lambda r: r.rel_l2 / r.tolerance)
    verdict = "" if all(r.passed for r in own) else " FAILED"
    return f"{worst.rel_l2:.1e} ({worst.tolerance:.1e}){verdict}"


def _classified(model: str, bundles: list[Path]) -> Iterator[str]:
    found = [evaluate_bundle(bundle) for bundle in bundles]
    for metric in ("accuracy", "precision", "recall", "f1"):
        cells = [f"{getattr(r.deployed, metric):.4f} ({r.difference[metric]:+.4f})" for r in found]
        reference = f"{getattr(found[0].reference, metric):.4f}"
        yield f"| {model} | {found[0].samples} | {metric} | {reference} | {' | '.join(cells)} |"


def _emoji(bundles: list[Path]) -> Iterator[str]:
    """Names spelt from pictures, and the versions, of the shipped held-out emoji."""
    module = resolve(MODELS[0]).module
    assert isinstance(module, Hybrid)
    sample = read_sample()
    pictures = {"pixel_values": feeds(sample.variants, sample.variants.names.tolist())["pixel_values"]}
    with torch.inference_mode():
        none = torch.zeros(len(pictures["pixel_values"]), module.config.text.length, dtype=torch.int64)  # type: ignore[union-attr]
        ids = greedy(module.generator("name"), module.trunk(torch.from_numpy(pictures["pixel_values"]), none)).numpy()
    sessions = [open_session(bundle, threads=1) for bundle in bundles]
    expected = [decode(row) for row in ids.tolist()]
    spelt = [expected, *(_spelt(session, pictures) for session in sessions)]
    exact, right, same = [], [], []
    for names in spelt:
        exact.append(np.mean([a == b for a, b in zip(names, sample.variants.names, strict=True)]))
        right.append(np.mean([concept(a) == concept(b) for a, b in zip(names, sample.variants.names, strict=True)]))
        same.append(np.mean([a == b for a, b in zip(names, expected, strict=True)]))
    for what, shares in (
        ("names of new variants, exact", exact),
        ("the same but for skin tone, hair, gender", right),
        ("names equal to PyTorch's", same),
    ):
        yield f"| {MODELS[0]} | {len(ids)} | {what} | {' | '.join(f'{share:.4f}' for share in shares)} |"
    yield from _versions(module, sessions)


def _spelt(session: Session, pictures: dict[str, Array]) -> list[str]:
    return [decode(row) for feed in batches(pictures, BATCH) for row in session.generate(feed).ids.tolist()]


def _versions(module: Hybrid, sessions: list[Session]) -> Iterator[str]:
    sample = read_sample()
    for what, table in (("variants", sample.variants), ("concepts", sample.concepts)):
        given = {n: a for n, a in feeds(table, table.names.tolist()).items() if n != "name_token"}
        with torch.inference_mode():
            reference = module(*map(torch.from_numpy, given.values()))["version"].numpy()
        predicted = [reference, *(_predicted(session, given) for session in sessions)]
        scores = [evaluate_regression(p[:, 0], table.versions.astype(np.float64)) for p in predicted]
        for metric in ("mae", "mape"):
            cells = " | ".join(f"{getattr(score, metric):.4f}" for score in scores)
            yield f"| {MODELS[0]} | {len(table.names)} | version of new {what}, {metric} | {cells} |"


def _predicted(session: Session, given: dict[str, Array]) -> Array:
    return np.concatenate([session.run(feed, outputs=("version",))["version"] for feed in batches(given, BATCH)])


if __name__ == "__main__":
    main()
