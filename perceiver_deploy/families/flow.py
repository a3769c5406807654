"""Optical flow: `inputs` (B, 2, patches, H, W) to `flow` (B, H, W, 2), in chunks of rows."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import Tensor, nn

from perceiver_deploy.families.components import component, make_cut, processor
from perceiver_deploy.families.family import Family
from perceiver_deploy.families.kv_cache import cached_attention, kv_specs, project_kv
from perceiver_deploy.families.online_softmax import NEXT, Begin, finish, next_state, state
from perceiver_deploy.models import online_softmax
from perceiver_deploy.models.flow import FlowConfig, OpticalFlow
from perceiver_deploy.models.released import RELEASED
from perceiver_exporters.component import Cut
from perceiver_runtime.pipeline import Chunk
from perceiver_runtime.settings import FlowSettings, OutputSettings, Processing
from perceiver_runtime.tensors import Array, Range, TensorSpec

TOKENS_PER_CHUNK = 4096
"""At 2048 latents and one head, 32 MB of scores."""


class UpdateFromRows(nn.Module):
    """Update the online softmax with pixel rows (B, 2, patch_dim, R, W) at row_index (R,)."""

    def __init__(self, model: OpticalFlow) -> None:
        super().__init__()
        self.tokens, self.update = model.tokens, online_softmax.Update(model.perceiver.encoder)

    def forward(
        self, q: Tensor, m: Tensor, total: Tensor, acc: Tensor, inputs: Tensor, row_index: Tensor
    ) -> tuple[Tensor, ...]:
        """The next m, total and acc."""
        following: tuple[Tensor, ...] = self.update(q, m, total, acc, self.tokens.rows(inputs, row_index))
        return following


class RowDecoder(nn.Module):
    """KV cache of the latents, queried by the tokens of pixel rows, to flow (B, R, W, 2)."""

    def __init__(self, model: OpticalFlow) -> None:
        super().__init__()
        self.tokens, self.attention, self.head = model.tokens, cached_attention(model.perceiver), model.head
        self.width, self.divisor = model.config.width, model.config.divisor

    def forward(self, key: Tensor, value: Tensor, inputs: Tensor, row_index: Tensor) -> Tensor:
        """Cross-attention and output adapter."""
        flow: Tensor = self.head(self.attention(self.tokens.rows(inputs, row_index), key, value)) / self.divisor
        return flow.reshape(flow.shape[0], -1, self.width, 2)


def cut(model: OpticalFlow) -> Cut:
    """Online softmax over chunks of rows; processor block; KV cache; decoder over chunks of rows."""
    config, perceiver = model.config, model.perceiver
    rows = min(config.height, max(1, TOKENS_PER_CHUNK // config.width))
    frames = TensorSpec("inputs", "float32", ("batch", 2, config.patch_dim, config.height, config.width))
    chunk_of_inputs = TensorSpec("inputs", "float32", ("batch", 2, config.patch_dim, "rows", config.width))
    every, some = TensorSpec("row_index", "int64", (config.height,)), TensorSpec("row_index", "int64", ("rows",))
    states = state(perceiver.config)
    flow = TensorSpec("flow", "float32", ("batch", "rows", config.width, 2))
    chunk, first = Chunk("rows", rows), Chunk("rows", rows, only_first=True)
    parts = [
        component(
            "encoder_begin",
            Begin(perceiver, config.height),
            (chunk_of_inputs,),
            (*states, every),
            "encode",
            chunk=first,
        ),
        component(
            "encoder_fold",
            UpdateFromRows(model),
            (*states, chunk_of_inputs, some),
            next_state(perceiver.config),
            "encode",
            values=NEXT,
            chunk=chunk,
            carry=NEXT,
        ),
        finish(perceiver),
        processor(perceiver.block, perceiver.config),
        project_kv(perceiver),
        component(
            "decoder", RowDecoder(model), (*kv_specs(perceiver), chunk_of_inputs, some), (flow,), "decode", chunk=chunk
        ),
    ]
    whole = TensorSpec("flow", "float32", ("batch", config.height, config.width, 2))
    return make_cut(parts, (frames,), (whole,), {"batch": Range(1, 1, 8), "rows": Range(1, rows, config.height)})


def sample(config: FlowConfig, batch: int, random: np.random.Generator) -> Mapping[str, Array]:
    """Standard-normal patches."""
    shape = (batch, 2, config.patch_dim, config.height, config.width)
    return {"inputs": random.standard_normal(shape, dtype=np.float32)}


def processing(config: FlowConfig) -> Processing:
    """That of the demonstration published with the released model; tiles of small models share less."""
    overlap = min(FlowSettings().overlap, min(config.height, config.width) - 1)
    return Processing(flow=FlowSettings(overlap=overlap), outputs={"flow": OutputSettings("flow")}, origin=ORIGIN)


ORIGIN = "the released model"

OPTICAL_FLOW = Family(
    name="optical-flow",
    summary="the motion of every pixel between two frames",
    config=FlowConfig,
    build=OpticalFlow,
    cut=cut,
    sample=sample,
    presets={"optical-flow-perceiver": RELEASED["optical-flow-perceiver"]},
    processing=processing,
)
