"""Training: deterministic by seed, and it learns."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from zoo_training.augment import flip, shift
from zoo_training.loop import Progress, TrainingConfig, batches, predict, train
from zoo_training.recipe import MODEL, TRAINING, build


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def weights_after(steps: int, seed: int, data) -> dict[str, torch.Tensor]:
    config = dataclasses.replace(TRAINING, steps=steps, seed=seed)
    return train(build, *data, config).state_dict()


def test_same_seed_gives_the_same_weights(sample_tensors):
    first, again = (weights_after(4, 0, sample_tensors) for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_another_seed_gives_other_weights(sample_tensors):
    first, other = (weights_after(2, seed, sample_tensors) for seed in (0, 1))
    assert not torch.equal(first["head.weight"], other["head.weight"])


def test_global_random_state_does_not_matter(sample_tensors):
    torch.manual_seed(5)
    first = weights_after(2, 0, sample_tensors)
    torch.manual_seed(6)
    assert torch.equal(first["perceiver.latents"], weights_after(2, 0, sample_tensors)["perceiver.latents"])


def test_loss_falls_well_below_chance(sample_tensors):
    reports: list[Progress] = []
    config = dataclasses.replace(TRAINING, steps=80, batch=32)
    module = train(build, *sample_tensors, config, lambda _, progress: reports.append(progress))
    images, labels = sample_tensors
    accuracy = (predict(module, images).argmax(1) == labels).float().mean()
    assert [r.step for r in reports] == [16, 32, 48, 64, 80]
    assert reports[0].loss > 1.3
    assert reports[-1].loss < 0.75 * reports[0].loss
    assert accuracy > 0.6  # chance is 0.1


def test_report_counts_steps_and_epochs(sample_tensors):
    reports: list[Progress] = []
    train(
        lambda: torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 10)),
        *sample_tensors,
        TrainingConfig(epochs=2, batch=128),
        lambda _, progress: reports.append(progress),
    )
    assert [(r.step, r.steps, r.epoch) for r in reports] == [(4, 8, 1), (8, 8, 2)]


def test_every_epoch_shows_every_image_once():
    stream = batches(10, 5, generator())
    epochs = [torch.cat([next(stream), next(stream)]) for _ in range(2)]
    assert all(sorted(epoch.tolist()) == list(range(10)) for epoch in epochs)
    assert not torch.equal(*epochs)


def test_incomplete_batch_is_left_out():
    stream = batches(7, 3, generator())
    assert [len(next(stream)) for _ in range(4)] == [3, 3, 3, 3]


def test_predict_in_parts_equals_the_whole_and_keeps_the_mode():
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Dropout(0.5), torch.nn.Linear(784, 10)).train()
    images = torch.randn(11, 1, 28, 28)
    torch.testing.assert_close(predict(module, images, batch=4), predict(module, images))
    assert module.training


def test_flip_mirrors_about_half():
    images = torch.arange(12.0).reshape(1, 1, 3, 4).expand(400, -1, -1, -1)
    flipped = flip(images, generator())
    mirrored = torch.stack([torch.equal(image, images[0].flip(-1)) * torch.ones(()) for image in flipped])
    kept = torch.stack([torch.equal(image, images[0]) * torch.ones(()) for image in flipped])
    assert torch.all(mirrored + kept == 1)
    assert 0.4 < mirrored.mean() < 0.6


def test_shift_moves_content_by_at_most_the_given_pixels():
    images = torch.zeros(200, 1, 9, 9)
    images[:, :, 4, 4] = 1
    places = shift(images, 2, generator())[:, 0].flatten(1).argmax(1)
    rows, columns = places // 9, places % 9
    assert set(rows.tolist()) == set(columns.tolist()) == {2, 3, 4, 5, 6}


def test_shift_by_nothing_changes_nothing():
    images = torch.randn(3, 2, 5, 6)
    assert torch.equal(shift(images, 0, generator()), images)


def test_shift_repeats_the_border():
    images = torch.arange(9.0).reshape(1, 1, 3, 3).expand(50, -1, -1, -1)
    assert set(shift(images, 1, generator()).unique().tolist()) == set(range(9))
    right = [image for image in shift(images, 1, generator())[:, 0] if image[0].tolist() == [0, 0, 1]]
    assert right
    assert all(torch.equal(image[:, 0], image[:, 1]) for image in right)


def test_weight_decay_spares_vectors_latents_and_queries():
    from zoo_training.loop import _groups

    module = build()
    names = {id(p): name for name, p in module.named_parameters()}
    decayed, spared = ([names[id(p)] for p in group["params"]] for group in _groups(module, 0.1))
    assert {"perceiver.latents", "query", "head.bias", "perceiver.encoder.query_norm.weight"} <= set(spared)
    assert {"head.weight", "tokens.project.weight"} <= set(decayed)
    assert len(decayed) + len(spared) == len(names)


def test_shipped_sizes_stay_what_they_should():
    parameters = sum(p.numel() for p in build().parameters())
    assert 200_000 < parameters < 500_000
    assert MODEL.perceiver.processor.blocks >= 2
    assert MODEL.patch <= 4


@pytest.mark.parametrize("field", ["seed", "epochs"])
def test_recipe_is_frozen(field):
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(TRAINING, field, 1)
