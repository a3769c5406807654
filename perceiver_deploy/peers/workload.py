"""`Workload`: a model and the inputs that peers run it on."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from perceiver_deploy.sources.model import Model
from perceiver_deploy.sources.module import ModuleConfig
from perceiver_exporters.cutting.call import Called
from perceiver_runtime.errors import UnavailableError
from perceiver_runtime.tensors import Array

Feeds = Mapping[str, Array]
MODALITIES = {"pixel_values": "pixels", "input_ids": "ids"}
"""Inputs, and what a module of several modalities, any of which may be absent, calls them."""


@dataclass(frozen=True)
class Workload:
    """What peers run.

    Attributes:
        model: The reference model.
        feeds: Inputs by name, in the order of the bundle's inputs.
        threads: CPU threads.
        directory: Where graphs are written; those that are there already are taken as they are.
        device: What PyTorch calls the device that runs them: "cpu" or "cuda".
    """

    model: Model
    feeds: Feeds
    threads: int
    directory: Path
    device: str = "cpu"

    def call(self) -> tuple[nn.Module, tuple[Tensor, ...], Mapping[str, Tensor]]:
        """The whole module in evaluation mode, on the processor, with the arguments of its call.

        Raises:
            UnavailableError: The model is a blueprint of components, or takes its preprocessing from the bundle.
        """
        model, feeds = self.model, self.feeds
        if isinstance(model.config, ModuleConfig):
            inputs = {spec.name: torch.from_numpy(np.array(feeds[spec.name])) for spec in model.config.inputs}
            return Called(model.module, {**inputs, **model.config.constants}).eval(), tuple(inputs.values()), {}
        if not self.is_whole:
            raise UnavailableError(f"{model.name}: expected a whole module, got components; take the peer torch alone")
        tensors = {name: torch.from_numpy(np.array(array)) for name, array in feeds.items()}
        parameters = inspect.signature(model.module.forward).parameters
        named = {MODALITIES[name]: tensor for name, tensor in tensors.items() if MODALITIES.get(name) in parameters}
        return model.module.eval(), () if named else tuple(tensors.values()), named

    def on_device(self, module: nn.Module) -> nn.Module:
        """The module where the workload runs; on a GPU a copy. Raises UnavailableError if PyTorch has no CUDA."""
        if self.device == "cpu":
            return module
        if not torch.cuda.is_available():
            raise UnavailableError(
                f"{self.model.name}: its bundles run on the GPU, and this PyTorch ({torch.__version__}) finds none to "
                "run the peers on; install a CUDA build of PyTorch, or compare with none (--against none)"
            )
        return copy.deepcopy(module).to(self.device)

    @property
    def is_whole(self) -> bool:
        """Whether the model is one module that takes the feeds, rather than components, or other arguments."""
        if self.model.made is not None or isinstance(self.model.config, ModuleConfig):
            return self.model.made is None
        parameters = inspect.signature(self.model.module.forward).parameters
        required = sum(parameter.default is parameter.empty for parameter in parameters.values())
        named = any(MODALITIES.get(name) in parameters for name in self.feeds)
        return named or required <= len(self.feeds) <= len(parameters)
