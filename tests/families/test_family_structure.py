"""What holds for every family: presets on the meta device, weights stored once, chunks that change nothing."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from factories.families import SMALL

from perceiver_deploy.api.models import summarise
from perceiver_deploy.checkpoints import huggingface, krasserm, lucidrains
from perceiver_deploy.checkpoints.fields import read
from perceiver_deploy.families import FAMILIES
from perceiver_deploy.models.config import CrossAttentionConfig, PerceiverConfig, ProcessorConfig
from perceiver_deploy.models.flow import FlowConfig
from perceiver_deploy.models.pixels import FourierClassifierConfig
from perceiver_deploy.models.released import RELEASED
from perceiver_deploy.sources.model import Model
from perceiver_deploy.sources.source import blueprint
from perceiver_deploy.zoo import zoo
from perceiver_exporters.export import export_bundle
from perceiver_exporters.memory.estimate import estimate, fit, with_chunks
from perceiver_exporters.reference import Reference
from perceiver_runtime.errors import UsageError
from perceiver_runtime.measure.compare import relative_l2

CROSS = CrossAttentionConfig(heads=1, qk_dim=16, v_dim=16)
FLOW = FlowConfig(
    height=24,
    width=16,
    patch_dim=27,
    token_dim=8,
    bands=3,
    perceiver=PerceiverConfig(
        16, 32, CROSS, ProcessorConfig(1, 2, 2), dataclasses.replace(CROSS, query_residual=False)
    ),
)


def flow_cut():
    torch.manual_seed(0)
    return FAMILIES["optical-flow"].cut(FAMILIES["optical-flow"].build(FLOW).eval())


def test_every_imported_family_can_be_cut():
    kinds = (*huggingface.ARCHITECTURES.values(), *krasserm.KINDS.values(), *krasserm.REPEATED.values())
    imported = {kind.family for kind in (*kinds, *lucidrains.KINDS.values())}  # type: ignore[attr-defined]
    assert imported <= set(FAMILIES)


def test_every_released_model_is_in_the_zoo_by_its_name():
    assert set(RELEASED) <= set(zoo())


def test_every_family_is_in_the_zoo():
    """`perceiver-export models` lists the zoo."""
    assert {entry.family.name for entry in zoo().values()} == set(FAMILIES)


def made(kind, arguments, sizes):
    """The config of a class of perceiver-pytorch, from the arguments of its constructor."""
    known = lucidrains.KINDS[kind]
    return known.config(read(arguments, known.arguments, "arguments"), sizes)


def test_the_examples_of_perceiver_pytorch_are_what_its_arguments_say():
    trunk = {"num_latents": 256, "latent_dim": 512, "depth": 6}
    image = {**trunk, "num_freq_bands": 6, "max_freq": 10.0, "self_per_cross_attn": 2}
    assert zoo()["perceiver-pytorch-image"].config == made("Perceiver", image, (224, 224))
    sequence = {**trunk, "dim": 32, "queries_dim": 32, "logits_dim": 100}
    text = {**trunk, "num_tokens": 20000, "dim": 32, "max_seq_len": 2048}
    assert zoo()["perceiver-pytorch-io"].config == made("PerceiverIO", sequence, ())
    assert zoo()["perceiver-pytorch-text"].config == made("PerceiverLM", text, ())


@pytest.mark.parametrize("name", ["vision-perceiver-fourier", "multimodal-perceiver"])
def test_a_summary_tells_the_released_size(name):
    summary = summarise(zoo()[name])
    pixels, latents = 50176, 512
    gflop = {
        # 50,176 pixels of 261 features: keys and values; scores and sums; queries, output and MLP of 512 latents
        "vision-perceiver-fourier": {
            "encoder": 4 * pixels * 261**2 + 4 * latents * pixels * 261 + 4 * latents * 1024 * (261 + 1024)
        },
        # as many video patches of 704 features, keys and values; scores and sums of 784 latents
        "multimodal-perceiver": {"encoder_fold": 4 * pixels * 704**2 + 4 * 784 * pixels * 704},
    }[name]
    for component, expected in gflop.items():
        assert summary.gflop[component] == pytest.approx(expected / 1e9, rel=1e-3)


def test_chunks_of_any_size_give_the_same_answer():
    cut = flow_cut()
    feeds = FAMILIES["optical-flow"].sample(FLOW, 2, np.random.default_rng(0))
    whole = Reference(with_chunks(cut, {"rows": 24}), torch.float64).run(feeds).values["flow"]
    assert whole.std() > 0.01 * np.abs(whole).mean()
    for rows in (1, 7, 23):
        pieces = Reference(with_chunks(cut, {"rows": rows}), torch.float64).run(feeds).values["flow"]
        assert relative_l2(whole, pieces) < 1e-12


def test_golden_samples_hold_chunks_rather_than_everything():
    cut = FAMILIES["optical-flow"].cut
    with torch.device("meta"):
        made = cut(FAMILIES["optical-flow"].build(RELEASED["optical-flow-perceiver"]))
    sizes = {"batch": 1, "rows": made.profile.dimensions["rows"].opt}
    inner = [spec for c in made.components for spec in c.outputs]
    assert max(np.prod(spec.resolve(sizes)) for spec in inner) * 4 < 5e6


def test_smaller_chunks_need_less_memory_and_fit_takes_the_largest_that_do():
    cut = flow_cut()
    expected = [estimate(with_chunks(cut, {"rows": rows})).total for rows in (24, 12, 6, 3)]
    assert expected == sorted(expected, reverse=True)
    assert len(set(expected)) == 4
    assert estimate(fit(cut, expected[1])).chunks == {"rows": 12}
    assert estimate(fit(cut, expected[2] + 1)).chunks == {"rows": 6}
    with pytest.raises(UsageError, match="the least possible is"):
        fit(cut, 1_000_000)


def test_a_forecast_leaves_the_model_as_it_is():
    family = FAMILIES["multimodal-autoencoder"]
    module = family.build(SMALL["multimodal-autoencoder"]).eval()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    estimate(family.cut(module))
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())


def test_a_forecast_counts_what_lives_at_the_same_time():
    """Two linear layers of 1000 x 1000 on (B, 1000): weights of 8 MB, at most two activations at a time."""
    cut = flow_cut()
    layers = torch.nn.Sequential(*(torch.nn.Linear(1000, 1000) for _ in range(5)))
    component = dataclasses.replace(
        cut.component("processor_block"),
        module=layers,
        inputs=(dataclasses.replace(cut.component("processor_block").inputs[0], shape=("batch", 100, 1000)),),
        outputs=(dataclasses.replace(cut.component("processor_block").outputs[0], shape=("batch", 100, 1000)),),
    )
    step = next(s for s in cut.pipeline.steps if s.component == "processor_block")
    inputs = (dataclasses.replace(component.inputs[0], name="latents"),)
    pipeline = dataclasses.replace(cut.pipeline, inputs=inputs, outputs=(), steps=(step,), defaults={})
    got = estimate(dataclasses.replace(cut, components=(component,), pipeline=pipeline))
    assert got.weights == 5 * (1000 * 1000 + 1000) * 4
    assert got.components["processor_block"] == pytest.approx(2 * 100 * 1000 * 4, rel=1e-3)


def test_shared_layers_are_stored_once(tmp_path: Path):
    """Eight applications of one block: the graphs and weights take what the parameters do, within 2%."""
    dims = CrossAttentionConfig(heads=1, qk_dim=35, v_dim=35)
    decoder = CrossAttentionConfig(heads=1, qk_dim=512, v_dim=512)
    perceiver = PerceiverConfig(32, 512, dims, ProcessorConfig(8, 2, 8), decoder)
    config = FourierClassifierConfig(3, 32, 32, 8, (32, 32), 512, 100, perceiver)
    family = FAMILIES["image-classifier-fourier"]
    module = family.build(config).eval()
    model = Model("shared", family, config, module, False)
    manifest = export_bundle(blueprint(model), tmp_path / "bundle", rules=())
    stored = sum(entry.size for path, entry in manifest.files.items() if path.startswith("onnx/"))
    parameters = sum(p.nbytes for p in module.parameters())
    assert parameters > 15e6
    assert stored == pytest.approx(parameters, rel=0.02)
