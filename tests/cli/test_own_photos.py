"""The README's second example: a checkpoint of one's own and a folder of photos, to INT8.

Photos are patches of the two that scikit-learn ships (CC BY 2.0, by danielbuechele and vultilion on flickr).
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from sklearn.datasets import load_sample_image
from transformers.models.perceiver.image_processing_pil_perceiver import PerceiverImageProcessorPil

import perceiver_deploy as pd
from perceiver_deploy.cli import main as program
from perceiver_runtime.cli import main as device
from perceiver_runtime.golden import load_golden
from perceiver_runtime.processing.files import read_image

pytestmark = pytest.mark.xdist_group("cli")
README = Path(__file__).parents[2] / "README.md"
CLASSES = ("china", "flower")
SETTINGS: dict[str, Any] = {
    "size": {"height": 32, "width": 32},
    "crop_size": {"height": 36, "width": 36},
    "resample": 2,
    "image_mean": [0.4, 0.5, 0.6],
    "image_std": [0.3, 0.25, 0.2],
}
"""None of them is a released model's."""
WIDTHS: dict[str, Any] = {"num_latents": 8, "d_latents": 32, "d_model": 24, "num_self_attends_per_block": 2}
HEADS: dict[str, Any] = {"num_blocks": 1, "num_self_attention_heads": 4, "num_cross_attention_heads": 2}
ORACLE = PerceiverImageProcessorPil(**SETTINGS)


def photos(folder: Path) -> list[Path]:
    """24 patches of each picture, of many sizes."""
    random, made = np.random.default_rng(0), []
    for name in CLASSES:
        picture = load_sample_image(f"{name}.jpg")
        (folder / name).mkdir(parents=True)
        for number in range(24):
            height, width = random.integers(60, 200, 2)
            top, left = random.integers(0, (picture.shape[0] - height, picture.shape[1] - width))
            made.append(folder / name / f"{number:02}.jpg")
            Image.fromarray(picture[top : top + height, left : left + width]).save(made[-1])
    return made


def pixels(files: list[Path]) -> torch.Tensor:
    """As transformers makes them."""
    images = [read_image(file) for file in files]
    return torch.cat(
        [ORACLE(i, input_data_format="channels_last", return_tensors="pt")["pixel_values"] for i in images]
    )


def checkpoint(directory: Path, files: list[Path]) -> transformers.PerceiverForImageClassificationLearned:
    """Random weights, and a last layer that tells the classes apart (ridge regression)."""
    torch.manual_seed(1)
    named: dict[str, Any] = {
        "id2label": dict(enumerate(CLASSES)),
        "label2id": {name: i for i, name in enumerate(CLASSES)},
    }
    model = transformers.PerceiverForImageClassificationLearned(
        transformers.PerceiverConfig(image_size=32, **WIDTHS, **HEADS, **named)
    ).eval()
    head, features = model.perceiver.decoder.decoder.final_layer, []
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1 and "latents" not in name and "position" not in name:
                parameter.mul_(4)
        hook = head.register_forward_hook(lambda _, inputs, __: features.append(inputs[0][:, 0]))
        model(inputs=pixels(files))
        hook.remove()
        targets = torch.tensor([[1.0, -1.0] if file.parent.name == CLASSES[0] else [-1.0, 1.0] for file in files])
        centred = features[0] - (mean := features[0].mean(0))
        ridge = 0.1 * (centred**2).sum() / len(mean) * torch.eye(len(mean))
        head.weight.copy_(2 * torch.linalg.solve(centred.T @ centred + ridge, centred.T @ targets).T)
        head.bias.copy_(-head.weight @ mean)
    model.save_pretrained(directory)
    (directory / "preprocessor_config.json").write_text(
        json.dumps({"image_processor_type": "PerceiverImageProcessor", **SETTINGS})
    )
    return model


def commands() -> list[list[str]]:
    """The README's block."""
    (block,) = (b for b in re.findall(r"```bash\n(.*?)```", README.read_text(encoding="utf-8"), re.S) if "photos" in b)
    return [shlex.split(line) for line in block.splitlines()]


def ended(main: Callable[[list[str]], int], words: list[str]) -> object:
    """The exit code of a command."""
    try:
        return main(words)
    except SystemExit as error:
        return error.code


def test_three_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    files = photos(tmp_path / "photos")
    model = checkpoint(tmp_path / "my-checkpoint", files)
    said = []
    for name, *words in commands():
        assert not ended({"perceiver-export": program.main, "perceiver-run": device.main}[name], words), words  # type: ignore[arg-type]
        said.append(capsys.readouterr().out)
    exported, evaluated, predicted = said
    assert re.search(r"golden sample.*photos \(6 samples", exported)
    assert "FAILED" not in exported
    card = (tmp_path / "photos-int8" / "README.md").read_text(encoding="utf-8")
    assert "`perceiver-run predict . photo.jpg`" in card
    assert "Settings: preprocessor_config.json." in card
    with pd.open_session("photos-int8") as session:
        manifest, (golden, *_) = session.manifest, load_golden(session.bundle)
        assert manifest.labels == CLASSES
        assert {component.precision for component in manifest.components} == {"int8"}
        made = pixels(files).numpy()
        rows = [np.abs(made - row).max((1, 2, 3)).argmin() for row in golden.feeds["pixel_values"]]
        np.testing.assert_array_equal(golden.feeds["pixel_values"], made[rows])
    accuracy = re.search(r"accuracy +21 +([\d.]+) +([\d.]+)", evaluated)
    assert accuracy is not None
    assert float(accuracy[1]) > 0.8
    assert abs(float(accuracy[2]) - float(accuracy[1])) < 0.1
    with torch.no_grad():
        expected = model(inputs=pixels([Path("photos/flower/01.jpg")])).logits.softmax(-1)[0].numpy()
    for label, probability in zip(CLASSES, expected, strict=True):
        found = re.search(rf" {label} +([\d.]+)", predicted)
        assert found is not None
        assert abs(float(found[1]) - probability) < 0.1
