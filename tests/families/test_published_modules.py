"""Modules that others published, exported as their packages have them: no family, no copied code."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from factories.weights import randomise
from models.oracle import relative
from torch import Tensor, nn

import perceiver_deploy as pd

pytestmark = pytest.mark.xdist_group("families")

TOLERANCE = 1e-5


def kept(rows: int, length: int) -> Tensor:
    mask = torch.ones(rows, length, dtype=torch.long)
    mask[0, length // 2 :] = 0
    return mask


def idefics2() -> tuple[nn.Module, dict[str, Tensor], dict[str, Any]]:
    from transformers.models.idefics2.configuration_idefics2 import Idefics2PerceiverConfig
    from transformers.models.idefics2.modeling_idefics2 import Idefics2PerceiverResampler

    sizes: dict[str, Any] = {
        "resampler_n_latents": 6,
        "resampler_depth": 2,
        "resampler_n_heads": 4,
        "resampler_head_dim": 8,
    }
    config = Idefics2PerceiverConfig(hidden_size=32, num_key_value_heads=2, **sizes)
    config._attn_implementation = "sdpa"
    inputs = {"context": torch.randn(8, 20, 32), "attention_mask": kept(8, 20)}
    dynamic = {"context": ("batch", "tokens", 32), "attention_mask": ("batch", "tokens")}
    return Idefics2PerceiverResampler(config), inputs, {"dynamic": dynamic}


def edgetam() -> tuple[nn.Module, dict[str, Tensor], dict[str, Any]]:
    """Two sets of latents; its forward takes one row."""
    from transformers.models.edgetam_video.configuration_edgetam_video import EdgeTamVideoConfig
    from transformers.models.edgetam_video.modeling_edgetam_video import EdgeTamVideoPerceiverResampler

    config = EdgeTamVideoConfig(
        perceiver_resampler_hidden_size=16,
        perceiver_resampler_num_latents=6,
        perceiver_resampler_num_latents_2d=4,
        perceiver_resampler_num_layers=2,
        perceiver_resampler_attention_head_dim=16,
        perceiver_resampler_mlp_intermediate_size=32,
    )
    config._attn_implementation = "sdpa"
    inputs = {"hidden_states": torch.randn(1, 16, 8, 8), "positional_encoding": torch.randn(1, 16, 8, 8)}
    dynamic = dict.fromkeys(inputs, (1, 16, 8, 8))
    return EdgeTamVideoPerceiverResampler(config), inputs, {"dynamic": dynamic}


def perceiver_io() -> tuple[nn.Module, dict[str, Tensor], dict[str, Any]]:
    """Encoder, a block that repeats, decoder."""
    from perceiver_pytorch import PerceiverIO

    sizes = {"num_latents": 6, "latent_dim": 32, "cross_dim_head": 8, "latent_dim_head": 8, "latent_heads": 2}
    module = PerceiverIO(dim=12, queries_dim=10, logits_dim=5, depth=3, weight_tie_layers=True, **sizes)
    inputs = {"data": torch.randn(8, 20, 12), "mask": kept(8, 20).bool(), "queries": torch.randn(8, 7, 10)}
    dynamic = {"data": ("batch", "length", 12), "mask": ("batch", "length"), "queries": ("batch", "asked", 10)}
    return module, inputs, {"dynamic": dynamic}


@pytest.mark.parametrize(
    ("make", "steps"),
    [
        (idefics2, [("model", 1)]),
        (edgetam, [("model", 1)]),
        (perceiver_io, [("encoder", 1), ("processor_block", 3), ("decoder", 1)]),
    ],
    ids=["Idefics2PerceiverResampler", "EdgeTamVideoPerceiverResampler", "PerceiverIO"],
)
def test_a_published_module_is_exported_as_it_is(make: Any, steps: Any, tmp_path: Any) -> None:
    module, inputs, options = make()
    randomise(module, sharpness=1.5)
    manifest = pd.export(module, tmp_path / "bundle", inputs=inputs, **options)
    assert [(step.component, step.repeat) for step in manifest.pipeline.steps] == steps
    assert pd.verify(tmp_path / "bundle", threads=1).passed
    expected = module(**inputs)
    with pd.open_session(tmp_path / "bundle", threads=1) as session:
        got = session.run({name: tensor.numpy() for name, tensor in inputs.items()})
    for answer, theirs in zip(got.values(), expected if isinstance(expected, tuple) else (expected,), strict=True):
        assert relative(torch.from_numpy(answer), theirs) < TOLERANCE
