"""`python -m zoo_training.emoji`: train the shipped emoji model from the font and the names.

First the trunk with three heads: kind and name from the picture alone (the text is missing), and whether picture
and name belong together. Then, on the frozen trunk, the head that tells the version.
"""

from __future__ import annotations

import platform
from dataclasses import replace
from pathlib import Path

import click
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perceiver_deploy.checkpoints.native import CheckpointRecord, save_checkpoint
from perceiver_deploy.datasets.emoji import PADDING
from perceiver_deploy.datasets.emoji.dataset import PROCESSING
from perceiver_deploy.datasets.emoji.sample import Splits
from perceiver_deploy.models.hybrid import Hybrid, freeze_trunk
from perceiver_deploy.models.hybrid.interaction import Features
from perceiver_deploy.refusal import RefusingCommand
from perceiver_runtime.format.schema import encode as to_json
from zoo_training.augment import shift
from zoo_training.data.emoji import Sources, read_splits
from zoo_training.emoji_model import HEAD_TRAINING, KIND, MATCH, MODEL, NAME, TRUNK_TRAINING, VERSION
from zoo_training.emoji_score import Scores, score
from zoo_training.emoji_tensors import Tensors, tensors
from zoo_training.initial import draw_linear
from zoo_training.loop import Progress, TrainingConfig, fit, prepare


def train_trunk(model: Hybrid, data: Tensors, config: TrainingConfig) -> None:
    """Fit trunk, kind, name and match. Half of the pairs have the name of another emoji of the data.

    Without the kind, which is learned within a few epochs, nothing calls for the picture early on: the decoder
    learns to spell without it, and the picture's features die.
    """
    trunk, samples = model.trunk, len(data.ids)

    def loss(index: Tensor, generator: torch.Generator) -> Tensor:
        other = torch.randint(samples, (len(index) // 2,), generator=generator)
        named = torch.cat([other, index[len(other) :]])
        pixels = shift(data.pixels[index], config.max_shift, generator)
        image, text = trunk.features(pixels, data.ids[named])
        missing = Features(text.tokens, torch.zeros_like(data.ids[index], dtype=torch.bool))
        logits = model.heads[MATCH](trunk.process(trunk.encode([image, text])))
        same = (data.ids[named] == data.ids[index]).all(dim=1).long()
        latents = trunk.process(trunk.encode([image, missing]))
        log_probs = model.heads[NAME](latents, data.spoken[index])
        said = F.nll_loss(log_probs.flatten(0, 1), data.target[index].flatten(), ignore_index=PADDING)
        kind = F.cross_entropy(model.heads[KIND](latents), data.kind[index], label_smoothing=config.label_smoothing)
        return said + kind + F.cross_entropy(logits, same)

    fit(model.train(), loss, samples, config, _report)


def train_version(model: Hybrid, data: Tensors, config: TrainingConfig) -> None:
    """Fit the version head alone, on pictures with their names."""
    freeze_trunk(model)
    with torch.inference_mode():
        parts = zip(torch.split(data.pixels, 256), torch.split(data.ids, 256), strict=True)
        found = torch.cat([model.trunk(*part) for part in parts])
    latents = found.clone()  # no inference tensor: gradients pass through what reads it

    def loss(index: Tensor, generator: torch.Generator) -> Tensor:
        return F.smooth_l1_loss(model.heads[VERSION](latents[index])[:, 0], data.version[index])

    fit(model, loss, len(latents), config, _report)


def train_emoji(splits: Splits, trunk: TrainingConfig, head: TrainingConfig, out: Path) -> Scores:
    """Train both stages, write the checkpoint to `out`, and score the held-out splits.

    The last epoch's weights are kept, whatever they score: no choice is made by the held-out emoji.
    """
    prepare(trunk)
    model, data = draw_linear(Hybrid(MODEL)), tensors(splits.training)
    train_trunk(model, data, trunk)
    train_version(model, data, head)
    scores = score(model, splits)
    save_checkpoint(out, _record(trunk, head, scores, splits), model)
    return scores


def _report(module: nn.Module, reached: Progress) -> None:
    click.echo(f"epoch {reached.epoch}: loss {reached.loss:.4f}, {reached.seconds:.0f} s", err=True)


def _record(trunk: TrainingConfig, head: TrainingConfig, scores: Scores, splits: Splits) -> CheckpointRecord:
    provenance = {
        "data": "Noto Color Emoji 2.042 (SIL OFL 1.1), emoji-test.txt 15.0 (Unicode licence): "
        f"{len(splits.training.names)} training emoji",
        "command": f"python -m zoo_training.emoji --font FILE --names FILE --out DIR --seed {trunk.seed}",
        "training": {"trunk": to_json(trunk), "version": to_json(head)},
        "scores": to_json(scores),
        "tools": {"torch": torch.__version__, "python": platform.python_version()},
    }
    return CheckpointRecord("hybrid", MODEL, "emoji", provenance, PROCESSING)


@click.command(cls=RefusingCommand)
@click.option("--font", type=click.Path(path_type=Path), required=True, help="NotoColorEmoji.ttf")
@click.option("--names", type=click.Path(path_type=Path), required=True, help="Unicode's emoji-test.txt")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Directory of the checkpoint.")
@click.option("--seed", type=int, default=TRUNK_TRAINING.seed, show_default=True)
@click.option("--steps", type=click.IntRange(min=1), help="Train each stage this many steps only.")
def main(font: Path, names: Path, out: Path, seed: int, steps: int | None) -> None:
    """Train the emoji model and write its checkpoint to OUT."""
    trunk, head = (replace(config, seed=seed, steps=steps) for config in (TRUNK_TRAINING, HEAD_TRAINING))
    scores = train_emoji(read_splits(Sources(font, names)), trunk, head, out)
    click.echo(str(scores))


if __name__ == "__main__":
    main()
