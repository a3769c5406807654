"""`Model`: a reference model with all that is known of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from perceiver_deploy.datasets import Dataset
from perceiver_deploy.families import Family
from perceiver_deploy.sources.origin import Origin
from perceiver_exporters.component import Blueprint
from perceiver_runtime.settings import Processing


@dataclass(frozen=True)
class Model:
    """A reference model in evaluation mode.

    Attributes:
        name: What bundles of it are called.
        family: How it is built, cut and fed.
        config: The family's frozen config.
        module: The PyTorch module.
        pretrained: Whether its weights come from a checkpoint, rather than being random.
        dataset: Its real data, if the project ships any.
        labels: Names of its classes, if the checkpoint gives them.
        notes: Assumptions that a user has to know.
        origin: Where it was found.
        processing: How its inputs are made, if its checkpoint states it.
        made: The blueprint that the user's own code made, if it did.
    """

    name: str
    family: Family
    config: Any
    module: nn.Module
    pretrained: bool
    dataset: Dataset | None = None
    labels: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    origin: Origin | None = None
    processing: Processing | None = None
    made: Blueprint | None = None
