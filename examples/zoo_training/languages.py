"""`python -m zoo_training.languages`: train the shipped language identifier from Django's catalogues."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perceiver_deploy.checkpoints.native import CheckpointRecord, save_checkpoint
from perceiver_deploy.datasets.languages import LANGUAGES, LENGTH, PROCESSING, VOCABULARY, encode
from perceiver_deploy.datasets.languages.dataset import NAME
from perceiver_deploy.datasets.languages.sample import Texts
from perceiver_deploy.models.config import CrossAttentionConfig, PerceiverConfig, ProcessorConfig
from perceiver_deploy.models.hybrid import ClassifierConfig, FeatureConfig, Hybrid, HybridConfig, TextConfig
from perceiver_deploy.refusal import RefusingCommand
from perceiver_runtime.evaluation.metrics import evaluate_classification
from perceiver_runtime.format.schema import encode as to_json
from zoo_training.data.languages import read_splits
from zoo_training.loop import Progress, TrainingConfig, fit, prepare

HEAD = "logits"
MODEL = HybridConfig(
    interaction_dim=64,
    query_dim=64,
    perceiver=PerceiverConfig(
        latents=8,
        latent_dim=64,
        encoder=CrossAttentionConfig(heads=1, qk_dim=64, v_dim=64),
        processor=ProcessorConfig(blocks=1, layers=1, heads=4),
        decoder=CrossAttentionConfig(heads=1, qk_dim=64, v_dim=64),
    ),
    text=TextConfig(
        vocabulary=VOCABULARY,
        length=LENGTH,
        embedding=32,
        hidden=64,
        features=FeatureConfig("add", ("channel_attention",)),
    ),
    classifiers=(ClassifierConfig(HEAD, len(LANGUAGES)),),
)
TRAINING = TrainingConfig(epochs=24, batch=128, learning_rate=3e-3)
WHOLE = 0.3
"""Share of training texts that are left whole; of the others a random run of at least MIN_WORDS words is kept."""

MIN_WORDS = 3


def crop(text: str, generator: torch.Generator) -> str:
    """A random run of the text's words, or the whole text."""
    words = text.split(" ")
    if len(words) <= MIN_WORDS or torch.rand((), generator=generator).item() < WHOLE:
        return text
    kept = int(torch.randint(MIN_WORDS, len(words) + 1, (), generator=generator))
    start = int(torch.randint(0, len(words) - kept + 1, (), generator=generator))
    return " ".join(words[start : start + kept])


def train_languages(texts: Texts, config: TrainingConfig, out: Path, held_out: Texts) -> float:
    """Train on the texts, write the checkpoint to `out`, and return the accuracy on the held-out texts.

    The last epoch's weights are kept, whatever they score: no choice is made by the held-out texts.
    """
    prepare(config)
    model = Hybrid(MODEL).train()
    labels = torch.tensor(texts.languages)

    def loss(index: Tensor, generator: torch.Generator) -> Tensor:
        batch = [crop(texts.texts[i], generator) for i in index.tolist()]
        logits = model(ids=torch.from_numpy(encode(batch)))[HEAD]
        return F.cross_entropy(logits, labels[index], label_smoothing=config.label_smoothing)

    def report(module: nn.Module, reached: Progress) -> None:
        click.echo(f"epoch {reached.epoch}: loss {reached.loss:.4f}, {reached.seconds:.0f} s", err=True)

    fit(model, loss, len(texts.texts), config, report)
    accuracy = accuracy_of(model, held_out)
    save_checkpoint(out, _record(config, accuracy, len(texts.texts), len(held_out.texts)), model)
    return accuracy


def accuracy_of(model: Hybrid, texts: Texts, batch: int = 256) -> float:
    """Share of the texts whose language is found."""
    with torch.inference_mode():
        logits = [model(ids=torch.from_numpy(encode(part)))[HEAD].numpy() for part in _parts(texts.texts, batch)]
    return evaluate_classification(np.concatenate(logits), np.array(texts.languages), LANGUAGES).accuracy


def _parts(texts: Sequence[str], size: int) -> list[Sequence[str]]:
    return [texts[i : i + size] for i in range(0, len(texts), size)]


def _record(config: TrainingConfig, accuracy: float, training: int, held_out: int) -> CheckpointRecord:
    provenance = {
        "data": f"message catalogues of Django 5.2 (BSD 3-clause) in {len(LANGUAGES)} languages: {training} training "
        f"texts, {held_out} held-out texts of other messages",
        "command": f"python -m zoo_training.languages --django DIR --out DIR --seed {config.seed}",
        "training": to_json(config),
        "accuracy": {"held_out": round(accuracy, 4)},
        "tools": {"torch": torch.__version__, "python": platform.python_version()},
    }
    return CheckpointRecord("hybrid", MODEL, NAME, provenance, PROCESSING)


@click.command(cls=RefusingCommand)
@click.option("--django", type=click.Path(path_type=Path), required=True, help="The django folder of its wheel.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Directory of the checkpoint.")
@click.option("--seed", type=int, default=TRAINING.seed, show_default=True)
@click.option("--steps", type=click.IntRange(min=1), help="Train this many steps only, the schedule included.")
def main(django: Path, out: Path, seed: int, steps: int | None) -> None:
    """Train the language identifier on the catalogues under DJANGO and write its checkpoint to OUT."""
    splits = read_splits(django)
    accuracy = train_languages(splits.training, replace(TRAINING, seed=seed, steps=steps), out, splits.held_out)
    click.echo(f"accuracy {accuracy:.4f} on {len(splits.held_out.texts)} held-out texts")


if __name__ == "__main__":
    main()
