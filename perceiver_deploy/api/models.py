"""Name, size and interface of the zoo's models, measured on the meta device: no weight is allocated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from perceiver_deploy.zoo import ZooEntry, zoo
from perceiver_exporters.component import Cut
from perceiver_exporters.shapes import Shape, step_shapes
from perceiver_runtime.pipeline import Step
from perceiver_runtime.tensors import TensorSpec


@dataclass(frozen=True)
class ModelSummary:
    """A model's name, size and interface. `gflop` is 2 x MAC per component and run, repeats and chunks included."""

    name: str
    family: str
    summary: str
    parameters: int
    pretrained: bool
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    latents: tuple[str, ...]
    gflop: Mapping[str, float]


def list_models() -> tuple[ModelSummary, ...]:
    """Describe every model of the zoo, at batch 1, without allocating its weights."""
    return tuple(summarise(entry) for entry in zoo().values())


def summarise(entry: ZooEntry) -> ModelSummary:
    """Describe one model at batch 1."""
    with torch.device("meta"):
        module = entry.family.build(entry.config).eval().requires_grad_(False)
    module.to("meta").requires_grad_(False)  # constant tables come from NumPy, whatever the device in force
    cut = entry.family.cut(module)
    pipeline = cut.pipeline
    return ModelSummary(
        name=entry.name,
        family=entry.family.name,
        summary=entry.family.summary,
        parameters=sum(p.numel() for p in module.parameters()),
        pretrained=entry.checkpoint is not None,
        inputs=tuple(map(str, pipeline.inputs)),
        outputs=tuple(map(str, pipeline.outputs)),
        latents=_latents(cut),
        gflop={
            step.component: _flops(cut, step, inputs) / 1e9
            for step, inputs in zip(pipeline.steps, step_shapes(cut), strict=True)
        },
    )


def _latents(cut: Cut) -> tuple[str, ...]:
    specs = {
        value: next(o for o in cut.component(step.component).outputs if o.name == graph_name)
        for step in cut.pipeline.steps
        for graph_name, value in step.outputs.items()
    }
    return tuple(str(TensorSpec(v, specs[v].dtype, specs[v].shape)) for v in cut.pipeline.encoded)


def _flops(cut: Cut, step: Step, inputs: Mapping[str, Shape]) -> int:
    """Runs the module on shapes alone; the chunks of a step add up to the whole."""
    component = cut.component(step.component)
    given = [
        torch.empty(inputs[spec.name], dtype=getattr(torch, spec.dtype), device="meta") for spec in component.inputs
    ]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        component.module(*given)
    return int(counter.get_total_flops()) * step.repeat
