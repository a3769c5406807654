"""The hybrid as a whole: sizes by config, missing modalities, generation, heads on a frozen trunk."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import pytest
import torch
from factories.hybrid import BOTH, IMAGE, PERCEIVER, TEXT, build, ids, pixels
from torch import Tensor, nn

from perceiver_deploy.models.config import CrossAttentionConfig, PerceiverConfig, ProcessorConfig
from perceiver_deploy.models.hybrid import (
    ClassifierConfig,
    FeatureConfig,
    GeneratorConfig,
    Hybrid,
    HybridConfig,
    ImageConfig,
    TextConfig,
    freeze_trunk,
)
from perceiver_deploy.models.hybrid.decoder import greedy
from perceiver_deploy.models.hybrid.encoders import MISSING_PIXEL
from perceiver_runtime.errors import UsageError
from perceiver_runtime.format.schema import decode, encode
from zoo_training.loop import TrainingConfig, fit

WIDER = HybridConfig(
    interaction_dim=12,
    query_dim=10,
    perceiver=PerceiverConfig(
        latents=7,
        latent_dim=24,
        encoder=CrossAttentionConfig(heads=3, qk_dim=12, v_dim=18, widening=2),
        processor=ProcessorConfig(blocks=3, layers=2, heads=4, widening=2),
        decoder=CrossAttentionConfig(heads=2, qk_dim=8, v_dim=6),
    ),
    image=ImageConfig(1, 9, 20, (4, 6, 8, 12), (1, 2, 1, 2), (5,), FeatureConfig("concat", ("frequency_attention",))),
    text=TextConfig(30, 11, 5, 6, layers=3, cell="rnn", bidirectional=False, features=FeatureConfig("multiply")),
    generators=(GeneratorConfig("name", 17, 6, 3, 8, layers=3, cell="gru"),),
    classifiers=(ClassifierConfig("a", 2), ClassifierConfig("b", 9)),
)
IMAGE_ONLY = HybridConfig(20, 12, PERCEIVER, image=IMAGE, classifiers=(ClassifierConfig("kind", 3),))
TEXT_ONLY = HybridConfig(20, 12, PERCEIVER, text=TEXT, classifiers=(ClassifierConfig("kind", 3),))


@pytest.mark.parametrize("config", [BOTH, WIDER, IMAGE_ONLY, TEXT_ONLY])
def test_every_size_is_config(config: HybridConfig) -> None:
    model = build(config)
    x = pixels(2, config.image) if config.image else None
    text = ids([3, 5], config.text, config.text.length) if config.text else None
    outputs = model(x, text)
    assert {name: out.shape[1] for name, out in outputs.items()} == {
        **{head.name: head.classes for head in config.classifiers},
        **{head.name: head.targets for head in config.regressors},
    }
    latents = model.trunk(x, text)
    assert latents.shape == (2, config.perceiver.latents, config.perceiver.latent_dim)
    for head in config.generators:
        assert greedy(model.generator(head.name), latents).shape[1] <= head.length
    assert decode(HybridConfig, json.loads(json.dumps(encode(config)))) == config


def test_missing_modalities_have_no_say() -> None:
    model = build(BOTH)
    x, text, none = pixels(2), ids([4, 9], width=24), torch.zeros(2, 24, dtype=torch.int64)
    absent = torch.full_like(x, MISSING_PIXEL)
    both, image, words = (model.trunk(*pair) for pair in ((x, text), (x, none), (absent, text)))
    assert (both - image).abs().max() > 1e-3
    assert (both - words).abs().max() > 1e-3
    mixed = model.trunk(torch.cat([x[:1], absent[:1]]), torch.cat([none[:1], text[1:]]))
    torch.testing.assert_close(mixed, torch.cat([image[:1], words[1:]]))
    black = model.trunk(torch.zeros_like(x), text)
    assert (black - words).abs().max() > 1e-3


def test_padding_has_no_say() -> None:
    model = build(TEXT_ONLY)
    short, padded = ids([4, 9]), ids([4, 9], width=24)
    padded[:, :9] = short
    torch.testing.assert_close(model(ids=short)["kind"], model(ids=padded)["kind"])
    torch.testing.assert_close(model(ids=short[:1, :4])["kind"], model(ids=padded)["kind"][:1])


def test_reading_a_sequence_is_stepping_through_it() -> None:
    decoder = build(BOTH).generator("name")
    latents, spoken = torch.randn(3, 4, 16), torch.randint(3, 30, (3, 8))
    state, steps = decoder.begin(latents), []
    for position in range(8):
        log_probs, state = decoder.step(spoken[:, position], state)
        steps.append(log_probs)
    torch.testing.assert_close(decoder(latents, spoken), torch.stack(steps, dim=1))
    torch.testing.assert_close(steps[0].exp().sum(dim=1), torch.ones(3))


def hashes(module: nn.Module) -> dict[str, str]:
    return {n: hashlib.sha256(t.numpy().tobytes()).hexdigest() for n, t in module.state_dict().items()}


def test_fine_tuning_a_head_leaves_trunk_and_other_heads_bit_identical() -> None:
    model = Hybrid(BOTH)
    before = hashes(model)
    freeze_trunk(model)
    x, text, target = pixels(8), ids([5] * 8, width=24), torch.arange(8) % 5

    def loss(index: Tensor, generator: torch.Generator) -> Tensor:
        return nn.functional.cross_entropy(model.heads["kind"](model.trunk(x[index], text[index])), target[index])

    fit(model, loss, 8, TrainingConfig(epochs=3, batch=4))
    changed = {name for name, value in hashes(model).items() if value != before[name]}
    assert changed
    assert all(name.startswith("heads.kind.") for name in changed)


def test_an_unfrozen_trunk_changes() -> None:
    model = Hybrid(BOTH).train()
    before = hashes(model.trunk)
    model(pixels(4), ids([3] * 4, width=24))
    assert hashes(model.trunk) != before  # batch statistics alone move it: freezing has to stop these too


def test_senseless_configs_are_refused() -> None:
    with pytest.raises(ValueError, match="image or a text"):
        Hybrid(replace(BOTH, image=None, text=None))
    with pytest.raises(ValueError, match="names of their own"):
        Hybrid(replace(BOTH, classifiers=(ClassifierConfig("name", 2),)))
    with pytest.raises(UsageError, match=r"\(name\), got 'kind'"):
        build(BOTH).generator("kind")
