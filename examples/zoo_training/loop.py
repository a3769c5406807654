"""Supervised training: AdamW under a one-cycle schedule, deterministic by seed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo_training.augment import flip, shift


@dataclass(frozen=True)
class TrainingConfig:
    """The recipe. One seed fixes initial weights, order and augmentation; `threads` is torch's intra-op count.

    `steps` cuts training short, the schedule included; None trains all `epochs`.
    """

    seed: int = 0
    epochs: int = 14
    batch: int = 64
    learning_rate: float = 2e-3
    warmup: float = 0.15
    weight_decay: float = 0.05
    label_smoothing: float = 0.05
    clip_norm: float = 1.0
    max_shift: int = 1
    threads: int = 1
    steps: int | None = None

    def total_steps(self, samples: int) -> int:
        """Optimiser steps over `samples` images; an incomplete last batch of an epoch is left out."""
        return self.steps or self.epochs * (samples // self.batch)


@dataclass(frozen=True)
class Progress:
    """Where training stands after `step` of `steps`: mean loss since the last report, seconds so far."""

    step: int
    steps: int
    epoch: int
    loss: float
    seconds: float


Loss = Callable[[Tensor, torch.Generator], Tensor]
"""The mean loss over the samples of the given indices (batch,); what is drawn at random comes from the generator."""

Report = Callable[[nn.Module, Progress], None]


def train(
    build: Callable[[], nn.Module],
    images: Tensor,
    labels: Tensor,
    config: TrainingConfig,
    report: Report = lambda module, progress: None,
) -> nn.Module:
    """Build a classifier and fit it to images (N, C, H, W) and labels (N,); returned in evaluation mode.

    `report` is called after each epoch. The same seed gives the same weights on the same machine and torch.
    """
    prepare(config)
    module = build().train()

    def loss(index: Tensor, generator: torch.Generator) -> Tensor:
        batch = shift(flip(images[index], generator), config.max_shift, generator)
        return F.cross_entropy(module(batch), labels[index], label_smoothing=config.label_smoothing)

    return fit(module, loss, len(images), config, report)


def prepare(config: TrainingConfig) -> None:
    """Set the thread count, and the seed that initial weights are drawn from."""
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)


def fit(
    module: nn.Module,
    loss: Loss,
    samples: int,
    config: TrainingConfig,
    report: Report = lambda module, progress: None,
) -> nn.Module:
    """Lower the loss over that many samples by the module's parameters that take gradients.

    The modes of the module's parts are left as they come (what is frozen stays in evaluation mode); it is returned
    in evaluation mode.
    """
    generator = torch.Generator().manual_seed(config.seed)
    total = config.total_steps(samples)
    optimiser = torch.optim.AdamW(_groups(module, config.weight_decay), lr=config.learning_rate, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, config.learning_rate, total_steps=total, pct_start=config.warmup, cycle_momentum=False
    )
    per_epoch, losses, start = samples // config.batch, [], time.perf_counter()
    for step, index in zip(range(1, total + 1), batches(samples, config.batch, generator), strict=False):
        value = loss(index, generator)
        optimiser.zero_grad()
        value.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(module.parameters(), config.clip_norm)
        optimiser.step()
        schedule.step()
        losses.append(value.item())
        if step % per_epoch == 0 or step == total:
            mean, losses = sum(losses) / len(losses), []
            report(module, Progress(step, total, -(-step // per_epoch), mean, time.perf_counter() - start))
    return module.eval()


def batches(samples: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Indices (size,) of shuffled epochs without end; each epoch's incomplete last batch is left out."""
    while True:
        order = torch.randperm(samples, generator=generator)
        yield from torch.split(order[: samples // size * size], size)


def predict(module: nn.Module, images: Tensor, batch: int = 500) -> Tensor:
    """Logits (N, classes) of images (N, C, H, W), in evaluation mode; the module's mode is put back."""
    training = module.training
    module.eval()
    with torch.inference_mode():
        logits = torch.cat([module(part) for part in torch.split(images, batch)])
    module.train(training)
    return logits


def _groups(module: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Decay matrices alone: biases, LayerNorm parameters, latents and queries are not shrunk."""
    decayed = [p for name, p in module.named_parameters() if p.ndim > 1 and name.endswith("weight")]
    chosen = {id(p) for p in decayed}
    rest = [p for p in module.parameters() if id(p) not in chosen]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]
