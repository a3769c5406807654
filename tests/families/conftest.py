"""One bundle per class of transformers at a reduced size, made by `export` of what `save_pretrained` writes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from models.oracle import Case, saved
from models.test_huggingface_parity import CASES
from models.test_multimodal_parity import SMALL
from torch import Tensor, nn
from torch_threads import deterministic as deterministic

import perceiver_deploy
from perceiver_deploy.families import flow, multimodal
from perceiver_runtime.execution.session import Session

SMALL_CASES = {
    "masked-language-model": CASES[0],
    "sequence-classifier": CASES[2],
    "image-classifier-learned": CASES[4],
    # 8 latents over 50,176 pixels: the importer gives it the released size, which its config does not name
    "image-classifier-fourier": Case("PerceiverForImageClassificationFourier", CASES[5].config, CASES[6].inputs),
    "image-classifier-conv": CASES[6],
    "optical-flow": CASES[8],
    "multimodal-autoencoder": SMALL,
}


@dataclass(frozen=True)
class Exported:
    """A class of transformers with random weights, and an open session of its bundle."""

    case: Case
    oracle: nn.Module
    session: Session

    def run(self, inputs: dict[str, Tensor], outputs: list[str] | None = None) -> dict[str, Tensor]:
        made = self.session.run({name: t.numpy() for name, t in inputs.items()}, outputs)
        return {name: torch.from_numpy(array) for name, array in made.items()}


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Exported]:
    """Export a family's small case once. Long inputs and outputs are cut so that the last chunk is a smaller one."""
    made: dict[str, Exported] = {}

    def get(family: str) -> Exported:
        if family not in made:
            with pytest.MonkeyPatch.context() as patch, torch.no_grad():
                patch.setattr(flow, "TOKENS_PER_CHUNK", 5 * 18)
                patch.setattr(multimodal, "POINTS_PER_CHUNK", 100)
                made[family] = export(SMALL_CASES[family], tmp_path_factory.mktemp(family))
        return made[family]

    return get


def export(case: Case, directory: Path, **options: Any) -> Exported:
    oracle = case.oracle()
    bundle = directory / "bundle"
    perceiver_deploy.export(str(saved(oracle, directory / "model")), bundle, **options)
    assert perceiver_deploy.verify(bundle).passed
    return Exported(case, oracle, perceiver_deploy.open_session(bundle, threads=1))
