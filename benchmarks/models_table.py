"""The table of families in docs/models.md: released sizes, and parity of model and bundle with transformers.

    python benchmarks/models_table.py [--write]

Parity is measured at reduced sizes with random weights, biases and normalisation, against transformers (see
tests/models): the reference model, and the FP32 bundle that `export` makes of a `save_pretrained` directory.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from families.conftest import SMALL_CASES, Exported, export  # noqa: E402
from models.oracle import exact_positions, relative  # noqa: E402

from perceiver_deploy.api.models import ModelSummary, summarise  # noqa: E402
from perceiver_deploy.checkpoints import load  # noqa: E402
from perceiver_deploy.families import FAMILIES  # noqa: E402
from perceiver_deploy.models.multimodal import coordinates_of  # noqa: E402
from perceiver_deploy.zoo import zoo  # noqa: E402

DOCUMENT = ROOT / "docs" / "models.md"
BEGIN, END = "<!-- table -->", "<!-- end of table -->"
HEADER = (
    "| Family | Released as | Parameters | Latents | GFLOP | Inputs | Outputs | Reference | FP32 bundle |\n"
    "|---|---|---:|---|---:|---|---|---:|---:|"
)


def parity(family: str, directory: Path) -> tuple[float, float]:
    """Relative L2 to transformers (with exact positions) of the reference model and of the bundle."""
    made = export(SMALL_CASES[family], directory)
    model = load(directory / "model").module
    inputs = made.case.inputs()
    with exact_positions():
        if family == "multimodal-autoencoder":
            return multimodal(made, model, inputs)
        expected = made.oracle(**inputs).logits
    ours, (bundle,) = model(*inputs.values()), made.run(inputs).values()
    expected = expected[:, : ours.shape[1]] if family == "masked-language-model" else expected
    return relative(ours, expected), relative(bundle, expected)


def multimodal(made: Exported, model: torch.nn.Module, clip: dict[str, torch.Tensor]) -> tuple[float, float]:
    """The largest distance over the modalities."""
    points = {"image": torch.randperm(1024)[:200], "audio": torch.randperm(16)[:8]}
    expected = made.oracle(clip, subsampled_output_points={**points, "label": None}).logits
    expected["audio"] = expected["audio"].reshape(1, 8, -1)
    sizes = {"image": model.config.video, "audio": model.config.audio}
    ours = model(clip["image"], clip["audio"], {n: coordinates_of(i, sizes[n]) for n, i in points.items()})  # type: ignore[arg-type]
    feeds = {"image": clip["image"], "audio": clip["audio"], **{f"{n}_index": i for n, i in points.items()}}
    bundle = made.run(feeds)
    distances = [[relative(got[name], expected[name]) for name in expected] for got in (ours, bundle)]
    return max(distances[0]), max(distances[1])


def names(specs: tuple[str, ...]) -> str:
    return ", ".join(f"`{spec.partition(':')[0]}`" for spec in specs)


def rows() -> Iterator[str]:
    for family in SMALL_CASES:
        (name,) = FAMILIES[family].presets
        s: ModelSummary = summarise(zoo()[name])
        with tempfile.TemporaryDirectory() as directory, torch.no_grad():
            torch.manual_seed(0)
            reference, bundle = parity(family, Path(directory))
        config = zoo()[name].config.perceiver
        yield (
            f"| `{family}` | `{name}` | {s.parameters:,} | {config.latents} x {config.latent_dim} "
            f"| {sum(s.gflop.values()):,.0f} | {names(s.inputs)} | {names(s.outputs)} "
            f"| {reference:.1e} | {bundle:.1e} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="put the table into docs/models.md")
    given = parser.parse_args()
    torch.set_num_threads(1)
    lines = [HEADER]
    for line in rows():
        lines.append(line)
        print(line, flush=True)
    if given.write:
        before, _, rest = DOCUMENT.read_text(encoding="utf-8").partition(BEGIN)
        after = rest.partition(END)[2]
        DOCUMENT.write_text("\n".join([f"{before}{BEGIN}\n", *lines, f"\n{END}{after}"]), encoding="utf-8")


if __name__ == "__main__":
    main()
