"""Checkpoints of krasserm's and lucidrains' packages, exported: the FP32 bundle gives the package's outputs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from factories.weights import randomise
from models.oracle import relative, saved
from models.test_third_party_parity import IMAGE, KRASSERM, LANGUAGE, SEQUENCE, asked, lucidrains, masked_image, text
from torch import Tensor

import perceiver_deploy

TOLERANCE = 1e-4

pytestmark = pytest.mark.xdist_group("families")


def check(oracle: Callable[..., Tensor], checkpoint: Path, directory: Path, *draws: tuple[Tensor, ...]) -> None:
    """The bundle of a checkpoint answers every draw as the package does, and the answers differ."""
    perceiver_deploy.export(str(checkpoint), directory / "bundle")
    assert perceiver_deploy.verify(directory / "bundle", threads=1).passed
    answers = []
    with perceiver_deploy.open_session(directory / "bundle", threads=1) as session:
        for inputs in draws:
            names = [spec.name for spec in session.inputs]
            (got,) = session.run({n: t.numpy() for n, t in zip(names, inputs, strict=True)}).values()
            answers.append(torch.from_numpy(got))
            distance = relative(answers[-1], oracle(*inputs))
            print(f"relative L2 {distance:.1e}")
            assert distance < TOLERANCE
    assert relative(answers[0], answers[1]) > 1e-2, "the input does not matter: parity would prove nothing"


BRIEF = ("masked language model, tied", "image classifier that reads twice", "optical flow")


@pytest.mark.parametrize("name", [n if n in BRIEF else pytest.param(n, marks=pytest.mark.full) for n in KRASSERM])
def test_a_bundle_equals_krasserm(name, tmp_path):
    build, draw, theirs = KRASSERM[name]
    oracle = randomise(build(), sharpness=1.5)
    checkpoint = saved(oracle, tmp_path / "model")
    check(lambda *inputs: oracle(*theirs(inputs)).logits, checkpoint, tmp_path, draw(), draw())


@pytest.mark.parametrize(
    "tied", [pytest.param(False, marks=pytest.mark.full, id="untied"), pytest.param(True, id="tied")]
)
def test_a_bundle_equals_lucidrains_perceiver(tied, tmp_path):
    from perceiver_pytorch import Perceiver

    arguments = {**IMAGE, "weight_tie_layers": tied}
    oracle = randomise(Perceiver(**arguments), sharpness=1.5)
    (tmp_path / "model").mkdir()
    checkpoint = lucidrains("Perceiver", tmp_path / "model", oracle, arguments, sizes=[8, 12])
    check(lambda x, mask: oracle(x, mask=mask.bool()), checkpoint, tmp_path, masked_image(), masked_image())
    with perceiver_deploy.open_session(tmp_path / "bundle", threads=1) as session:
        inputs, _ = masked_image()
        whole = session.run({"inputs": inputs.numpy()})["logits"]
    assert relative(torch.from_numpy(whole), oracle(inputs)) < TOLERANCE, "the default is a mask of ones"


def test_a_bundle_of_a_lucidrains_perceiver_without_a_head_gives_its_latents(tmp_path):
    from perceiver_pytorch import Perceiver

    arguments = {**IMAGE, "depth": 2, "final_classifier_head": False}
    oracle = randomise(Perceiver(**arguments), sharpness=1.5)
    (tmp_path / "model").mkdir()
    checkpoint = lucidrains("Perceiver", tmp_path / "model", oracle, arguments, sizes=[8, 12])
    check(lambda x, mask: oracle(x, mask=mask.bool()), checkpoint, tmp_path, masked_image(), masked_image())


def test_a_bundle_equals_lucidrains_perceiver_io(tmp_path):
    from perceiver_pytorch import PerceiverIO

    arguments = {**SEQUENCE, "queries_dim": 20, "logits_dim": 5, "weight_tie_layers": True}
    oracle = randomise(PerceiverIO(**arguments), sharpness=1.5)
    (tmp_path / "model").mkdir()
    checkpoint = lucidrains("PerceiverIO", tmp_path / "model", oracle, arguments)
    check(lambda x, queries, mask: oracle(x, mask.bool(), queries), checkpoint, tmp_path, asked(), asked())


def test_a_bundle_equals_lucidrains_language_model(tmp_path):
    from perceiver_pytorch import PerceiverLM

    arguments = {**LANGUAGE, "decoder_ff": True}
    oracle = randomise(PerceiverLM(**arguments), sharpness=1.5)
    (tmp_path / "model").mkdir()
    checkpoint = lucidrains("PerceiverLM", tmp_path / "model", oracle, arguments)
    check(lambda ids, mask: oracle(ids, mask=mask.bool()), checkpoint, tmp_path, text(), text())
