"""Error growth over a repeated block at every precision: the table of docs/parity.md and its figure.

python benchmarks/error_growth.py --picture docs/error-growth.svg
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import torch

from perceiver_deploy.api.growth import GrowthReport, write_growth
from perceiver_deploy.api.growth import growth as bundle_growth
from perceiver_deploy.families import FAMILIES
from perceiver_deploy.models.config import CrossAttentionConfig, PerceiverConfig, ProcessorConfig
from perceiver_deploy.models.released import RELEASED
from perceiver_deploy.sources.source import blueprint, resolve
from perceiver_exporters.component import Blueprint
from perceiver_exporters.diagnose.error_growth import ErrorGrowth, measure_growth
from perceiver_exporters.export import export_bundle
from perceiver_exporters.ir.trace import SharedTraces
from perceiver_exporters.weights import weights_sha256
from perceiver_runtime import open_session
from perceiver_runtime.manifest import Source

TRAINED = "fashion-perceiver"
PRECISIONS = {"trained": ("fp32", "fp16", "int8"), "random": ("fp32", "fp16")}
CROSS = CrossAttentionConfig(heads=1, qk_dim=128, v_dim=128)
DEEP = replace(
    RELEASED["vision-perceiver-learned"],
    height=16,
    width=16,
    pixel_dim=32,
    position_dim=32,
    query_dim=128,
    classes=10,
    perceiver=PerceiverConfig(32, 128, CROSS, ProcessorConfig(blocks=8, layers=6, heads=8), CROSS),
)
"""The released 8 x 6 shared layers at an eighth of their width. Its weights are random."""


def random_model() -> Blueprint:
    torch.manual_seed(0)
    family = FAMILIES["image-classifier-learned"]
    module = family.build(DEEP).eval().requires_grad_(False)
    for name, parameter in module.named_parameters():
        if parameter.ndim >= 2:
            parameter.normal_(std=parameter[0].numel() ** -0.5)
        else:
            parameter.normal_(mean=1.0 if "norm" in name and name.endswith("weight") else 0.0, std=0.1)
    source = Source("8x6, random", family.name, weights_sha256(module), {}, pretrained=False)
    return Blueprint(source, family.cut(module), (family.sample(DEEP, 2, np.random.default_rng(0)),))


def rows(growth: ErrorGrowth, model: str, precision: str) -> str:
    runs = len(growth.teacher_forced)
    shown = (
        model,
        precision,
        f"{growth.chained[0]:.1e}",
        *(f"{growth.chained[i]:.1e}" for i in (1, runs)),
        f"{growth.amplified[-1]:.1e}",
        f"{min(growth.teacher_forced):.1e} to {max(growth.teacher_forced):.1e}",
        f"{growth.encoder_share:.0%}",
    )
    return f"| {' | '.join(shown)} |"


@click.command()
@click.option("--picture", type=click.Path(path_type=Path), help="Draw the random model's FP16 curves there.")
def main(picture: Path | None) -> None:
    print("| Model | Precision | Encoder | after 1 run | after all | encoder's part | one run alone | share |")
    print("|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        trained, traces = blueprint(resolve(TRAINED)), SharedTraces()
        for precision in PRECISIONS["trained"]:
            bundle = Path(folder, precision)
            export_bundle(trained, bundle, precision, tracer=traces)
            for growth in bundle_growth(bundle).growth:
                print(rows(growth, f"`{TRAINED}`, {len(growth.teacher_forced)} runs", precision))
        deep, traces = random_model(), SharedTraces()
        for precision in PRECISIONS["random"]:
            bundle = Path(folder, f"random-{precision}")
            export_bundle(deep, bundle, precision, tracer=traces)
            with open_session(bundle) as session:
                found = measure_growth(session, deep.cut, deep.golden)
                report = GrowthReport(deep.source.name, precision, session.backend, len(deep.golden), found)
            for growth in found:
                print(rows(growth, f"8 x 6 layers, random, {len(growth.teacher_forced)} runs", precision))
            if picture is not None and precision == "fp16":
                write_growth(report, picture)


if __name__ == "__main__":
    main()
