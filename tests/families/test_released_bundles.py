"""Released sizes, random weights: the FP32 bundle equals transformers, and weighs what its parameters do."""

from __future__ import annotations

import resource

import pytest
import torch
from families.conftest import export
from models.oracle import exact_positions, relative
from models.test_huggingface_parity import RELEASED
from models.test_multimodal_parity import RELEASED as MULTIMODAL

TOLERANCE = 1e-4
LIGHTEST = 0.9
"""Rules fold query projections and positions away; more can't be missing from a bundle that computes the model."""
HEAVIEST = {"PerceiverForOpticalFlow": 1.06}
"""Its 2048 latents are stored as they are and as the queries that they always give, beside an empty sum."""

pytestmark = [pytest.mark.full, pytest.mark.xdist_group("families")]


@pytest.mark.parametrize("case", RELEASED, ids=lambda c: c.name.removeprefix("PerceiverFor"))
def test_equals_transformers_at_released_size(case, tmp_path):
    torch.set_num_threads(2)
    made = export(case, tmp_path)
    inputs = case.inputs()
    (got,) = made.run(inputs).values()
    distance = relative(got, made.oracle(**inputs).logits)
    stored = sum(e.size for path, e in made.session.manifest.files.items() if path.startswith("onnx/"))
    parameters = sum(p.nbytes for p in made.oracle.parameters())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"{case.name}: relative L2 {distance:.1e}, {stored / parameters:.3f} of the parameters, peak {peak:.1f} GB")
    assert distance < TOLERANCE
    assert LIGHTEST * parameters < stored < HEAVIEST.get(case.name, 1.02) * parameters


def test_multimodal_points_equal_transformers_at_released_size(tmp_path):
    """Held against transformers with exact positions: its own FP32 sines of up to 48,255 rad are further away."""
    torch.set_num_threads(2)
    made = export(MULTIMODAL, tmp_path)
    clip = MULTIMODAL.inputs()
    points = {"image": torch.randperm(16 * 224 * 224)[:6272], "audio": torch.randperm(1920)[:500]}
    as_it_is = made.oracle(clip, subsampled_output_points={**points, "label": None}).logits
    with exact_positions():
        exact = made.oracle(clip, subsampled_output_points={**points, "label": None}).logits
    got = made.run({**{n: clip[n] for n in points}, **{f"{n}_index": i for n, i in points.items()}})
    got["audio"] = got["audio"].flatten(1)
    for name, answer in got.items():
        distance = relative(answer, exact[name])
        print(f"multimodal {name}: relative L2 {relative(answer, as_it_is[name]):.1e}, exact {distance:.1e}")
        assert distance < TOLERANCE, name
