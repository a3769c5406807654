"""Write docs/hybrid.md: parity, engines and accuracy of the shipped hybrid models at every precision.

PYTHONPATH=examples python benchmarks/hybrid_parity.py > docs/hybrid.md
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from hybrid_parts import PARTS
from torch import Tensor

from perceiver_deploy.api.evaluate import evaluate
from perceiver_deploy.datasets import ArraySamples
from perceiver_deploy.datasets.emoji import decode
from perceiver_deploy.datasets.emoji.dataset import feeds
from perceiver_deploy.datasets.emoji.sample import Splits, read_sample
from perceiver_deploy.models.hybrid import Hybrid, freeze_trunk
from perceiver_deploy.models.hybrid.decoder import greedy
from perceiver_deploy.sources.source import blueprint, resolve
from perceiver_exporters.export import export_bundle
from perceiver_exporters.ir.trace import SharedTraces
from perceiver_exporters.weights import weights_sha256
from perceiver_runtime import Session, open_session, verify
from perceiver_runtime.errors import PerceiverError
from perceiver_runtime.measure.compare import ParityReport
from perceiver_runtime.tensorrt.api import load_tensorrt
from perceiver_runtime.tensorrt.builder.bundle import EngineOptions, EngineReport, build_engines
from perceiver_runtime.tensors import Array
from zoo_training.emoji_score import spelling, typical
from zoo_training.loop import TrainingConfig, fit

EMOJI, LANGUAGES = "emoji-namer", "language-identifier"
BATCH = 64
PRECISIONS = ("fp32", "fp16", "int8")
BACKENDS = (("onnxruntime", "cpu"), ("openvino", "cpu"), ("onnxruntime-exact", "rtx"))
"""Backends that run here, and the target whose bundles each is given."""

GPU = "12.0"
NAME_SCORES = {
    "exact": "exact",
    "concept": "correct except for skin tone, hair, gender",
    "similarity": "edit similarity",
}
Bundles = Mapping[tuple[str, str], Path]
"""By target and precision."""


USE = """
## Use

```python
import perceiver_deploy as pd
from perceiver_runtime import Sampling, open_session
from perceiver_runtime.golden import load_golden

pd.export("emoji-namer", "namer")
with open_session("namer") as session:
    feeds = load_golden(session.bundle)[0].feeds
    answers = session.run(feeds, outputs=("kind", "version"))  # the trunk once, and no other head
    pictures = {"pixel_values": feeds["pixel_values"]}  # the text may be left out
    greedy = session.generate(pictures)
    drawn = session.generate(pictures, sampling=Sampling(temperature=0.7, top_k=5, seed=1))
```

Sequences of a batch end independently, and a batch gives the same ids as row-by-row calls. When sampling, row i uses a
generator seeded by (seed, i), so its samples do not depend on the other rows
(`test_batched_generation_equals_one_by_one`)."""


def main() -> None:
    """Export, verify, build and evaluate, and print the page."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        places = [(target, precision) for target in ("cpu", "rtx") for precision in PRECISIONS]
        emoji = _export(EMOJI, Path(folder), places)
        languages = _export(LANGUAGES, Path(folder), places[:3])
        sections = (
            _parts(emoji),
            _engines(emoji),
            _accuracy(emoji, languages),
            _generation(emoji),
            _shared(emoji, Path(folder)),
            (USE,),
        )
        print("\n".join(line for section in sections for line in section))


def _export(name: str, folder: Path, places: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Path]:
    made, traces = blueprint(resolve(name)), SharedTraces()
    bundles = {place: folder / f"{name}-{'-'.join(place)}" for place in places}
    for (target, precision), path in bundles.items():
        print(f"export {path.name}", file=sys.stderr, flush=True)
        export_bundle(made, path, precision, target, tracer=traces)
    return bundles


def _parts(bundles: Bundles) -> Iterator[str]:
    columns = [(backend, target, precision) for backend, target in BACKENDS for precision in PRECISIONS]
    found = {column: _verified(bundles[column[1], column[2]], column[0]) for column in columns}
    shown = [column for column in columns if found[column]]
    yield "# Hybrid models\n"
    yield "Made by `PYTHONPATH=examples python benchmarks/hybrid_parity.py` without a GPU. Golden samples are held-out"
    yield "data.\n"
    yield f"## Parts of `{EMOJI}`\n"
    yield "Largest relative L2 error of a part's components on reference inputs (tolerance), by backend and"
    yield "precision. `onnxruntime-exact` runs the bundles for engines, with quantised products computed as the graph"
    yield "defines them; it is not TensorRT. No engine was run, for lack of a GPU.\n"
    titles = [f"{backend} {precision}" for backend, _, precision in shown]
    yield from _head("Part", "Module (`models/hybrid/`)", "Components", *titles, "Test")
    for part in PARTS:
        cells = [_worst(found[column], part.components) for column in shown]
        names = ", ".join(part.components) or "-"
        yield _row(part.what, f"`{part.module}`", names, *cells, f"`{part.test}`")
    whole = [_worst(found[column], ("pipeline",), "chained") for column in shown]
    test = "`test_every_component_and_the_pipeline_hold_parity`"
    yield _row("whole pipeline, chained", "", "all", *whole, test) + "\n"
    for column in columns:
        title, reports = f"`{column[0]}` at {column[2]}", found[column]
        failed = sorted({r.component for r in reports if not r.passed})
        if not reports:
            yield f"- {title} can't load the bundle: not usable for this model."
        elif failed:
            yield f"- {title} does not hold parity ({', '.join(failed)}): not usable for this model."
    yield ""


def _verified(bundle: Path, backend: str) -> tuple[ParityReport, ...]:
    """Its reports; none if the backend can't run the bundle, which is told on stderr."""
    print(f"verify {bundle.name} on {backend}", file=sys.stderr, flush=True)
    try:
        return verify(bundle, backend, threads=1).reports
    except PerceiverError as error:
        print(error, file=sys.stderr)
        return ()


def _worst(reports: Sequence[ParityReport], components: Sequence[str], mode: str = "teacher-forced") -> str:
    own = [r for r in reports if r.component in components and r.mode == mode]
    if not own:
        return "-"
    worst = max(own, key=lambda r: r.rel_l2 / r.tolerance)
    verdict = "" if all(r.passed for r in own) else " FAILED"
    return f"{worst.rel_l2:.1e} ({worst.tolerance:.1e}){verdict}"


def _engines(bundles: Bundles) -> Iterator[str]:
    """TensorRT-RTX's parser and builder, without a GPU."""
    trt, options = load_tensorrt("tensorrt_rtx"), EngineOptions(workspace=1 << 30, compute_capabilities=(GPU,))
    built: dict[str, dict[str, EngineReport]] = {}
    for precision in PRECISIONS:
        print(f"build {precision}", file=sys.stderr, flush=True)
        built[precision] = {r.component: r for r in build_engines(bundles["rtx", precision], "rtx", trt, options)}
    name = f"SM{GPU.replace('.', '')}"
    yield f"## Engines\n\nTensorRT-RTX {trt.__version__} parsed and built each component for {name}, in seconds:\n"
    yield from _head("Component", *PRECISIONS)
    for component in built[PRECISIONS[0]]:
        yield _row(component, *(f"built, {built[p][component].seconds:.1f} s" for p in PRECISIONS))
    yield ""


def _accuracy(emoji: Bundles, languages: Bundles) -> Iterator[str]:
    yield "## Accuracy on held-out data\n"
    yield "PyTorch and the CPU bundles, by `perceiver-export evaluate BUNDLE...`. The mean absolute percentage error"
    yield "excludes samples whose target is zero (here none).\n"
    yield from _head("Model", "Output", "Samples", "Metric", "PyTorch", *PRECISIONS, "Chance")
    chances = _chances()
    for name, bundles in ((EMOJI, emoji), (LANGUAGES, languages)):
        print(f"evaluate {name}", file=sys.stderr, flush=True)
        evaluated = evaluate([bundles["cpu", precision] for precision in PRECISIONS], threads=1)
        for reports in zip(*evaluated, strict=True):
            first = reports[0]
            for metric in first.difference:
                cells = [f"{getattr(r.deployed, metric):.4f} ({r.difference[metric]:+.4f})" for r in reports]
                chance = chances.get((first.output, metric), "")
                reference = f"{getattr(first.reference, metric):.4f}"
                yield _row(name, first.output, f"{first.samples:,}", metric, reference, *cells, chance)
    yield ""


def _chances() -> dict[tuple[str, str], str]:
    """What knows nothing of the input scores: the commonest class of the training sample, or its median."""
    sample = read_sample()
    kinds, counts = np.unique(sample.training.kinds, return_counts=True)
    held = np.concatenate([sample.variants.kinds, sample.concepts.kinds])
    versions = np.concatenate([sample.variants.versions, sample.concepts.versions])
    error = np.abs(np.median(sample.training.versions) - versions)
    texts = resolve(LANGUAGES).dataset
    assert texts is not None
    targets = np.concatenate([part.targets["logits"] for part in texts.scored[0].samples.batches(BATCH)])
    commonest = np.bincount(targets).max() / len(targets)
    return {
        ("kind", "accuracy"): f"{(held == kinds[counts.argmax()]).mean():.4f}",
        ("match", "accuracy"): "0.5000",
        ("version", "mae"): f"{error.mean():.4f}",
        ("version", "mape"): f"{(error / versions).mean():.4f}",
        ("logits", "accuracy"): f"{commonest:.4f}",
    }


def _generation(bundles: Bundles) -> Iterator[str]:
    """Names spelt from the shipped pictures, greedily."""
    module, sample = _hybrid(), read_sample()
    yield "## Names generated from pictures (greedy, 128 of each split)\n"
    yield "Chance is the training name most similar to all others, for every picture. Scores of all 585 held-out emoji,"
    yield f"beside the nearest picture's name, are in the model card, `perceiver_deploy/zoo/{EMOJI}/README.md`.\n"
    yield from _head("Split", "Score", "Chance", "PyTorch", *PRECISIONS)
    sessions = [open_session(bundles["cpu", precision], threads=1) for precision in PRECISIONS]
    for split in ("variants", "concepts"):
        yield from _names(module, sessions, sample, split)
    yield ""


def _names(module: Hybrid, sessions: Sequence[Session], sample: Splits, split: str) -> Iterator[str]:
    table = getattr(sample, split)
    true = table.names.tolist()
    pictures = {"pixel_values": feeds(table, true)["pixel_values"]}
    assert module.config.text is not None
    with torch.inference_mode():
        none = torch.zeros(len(true), module.config.text.length, dtype=torch.int64)
        ids = greedy(module.generator("name"), module.trunk(torch.from_numpy(pictures["pixel_values"]), none))
    expected = [decode(row) for row in ids.tolist()]
    said = [[typical(sample.training.names.tolist())] * len(true), expected]
    said += [_spelt(session, pictures) for session in sessions]
    scores = [spelling(names, true) for names in said]
    for field, label in NAME_SCORES.items():
        yield _row(split, label, *(f"{getattr(score, field):.4f}" for score in scores))
    same = [np.mean([a == b for a, b in zip(names, expected, strict=True)]) for names in said[1:]]
    yield _row(split, "same as PyTorch's", "", *(f"{share:.4f}" for share in same))


def _spelt(session: Session, pictures: Mapping[str, Array]) -> list[str]:
    parts = ArraySamples(pictures).batches(BATCH)
    return [decode(row) for part in parts for row in session.generate(part.feeds).ids.tolist()]


def _shared(bundles: Bundles, folder: Path) -> Iterator[str]:
    """Fine-tune one head on the frozen trunk, export again, and see which files changed."""
    print("fine-tune a head", file=sys.stderr, flush=True)
    model = resolve(EMOJI)
    module, before = model.module, weights_sha256(_trunk(model.module))
    assert isinstance(module, Hybrid)
    _fine_tune(module)
    again = folder / "fine-tuned"
    export_bundle(blueprint(model), again)
    hashes = [_hashes(path) for path in (bundles["cpu", "fp32"], again)]
    changed = sorted(name for name in hashes[0] if hashes[0][name] != hashes[1][name])
    after = weights_sha256(_trunk(module))
    verdict = "the same" if before == after else "CHANGED"
    yield "## One trunk, several heads\n"
    yield "The head `version` was trained for 20 steps on the frozen trunk. SHA-256 of the trunk's tensors:"
    yield f"`{before[:16]}` before, `{after[:16]}` after, {verdict}. Of the {len(hashes[0])} ONNX files of the bundle,"
    yield f"exported again, these changed: {', '.join(f'`{name}`' for name in changed)}.\n"
    yield from _head("File", "SHA-256 before", "after")
    for name in sorted(hashes[0]):
        yield _row(name, *(f"`{side[name][:16]}`" for side in hashes))
    yield "\nTests: `test_fine_tuning_a_head_leaves_trunk_and_other_heads_bit_identical`,"
    yield "`test_fine_tuning_a_head_leaves_the_trunks_files_bit_identical`."


def _fine_tune(module: Hybrid) -> None:
    training = read_sample().training
    given = feeds(training, training.names.tolist())
    with torch.inference_mode():
        found = module.trunk(torch.from_numpy(given["pixel_values"]), torch.from_numpy(given["input_ids"]))
    latents, versions = found.clone(), torch.from_numpy(training.versions)

    def loss(index: Tensor, generator: torch.Generator) -> Tensor:
        return F.smooth_l1_loss(module.heads["version"](latents[index])[:, 0], versions[index])

    fit(freeze_trunk(module), loss, len(latents), TrainingConfig(steps=20))


def _hashes(bundle: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (bundle / "onnx").iterdir()}


def _trunk(module: torch.nn.Module) -> torch.nn.Module:
    assert isinstance(module, Hybrid)
    return module.trunk


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _head(*titles: str) -> Iterator[str]:
    yield _row(*titles)
    yield f"|{'---|' * len(titles)}"


def _hybrid() -> Hybrid:
    module = resolve(EMOJI).module
    assert isinstance(module, Hybrid)
    return module


if __name__ == "__main__":
    main()
