"""Tables of emoji as tensors."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from perceiver_deploy.datasets.emoji import PADDING, START, STOP, encode, scale
from perceiver_deploy.datasets.emoji.kinds import KINDS
from perceiver_deploy.datasets.emoji.sample import Table


@dataclass(frozen=True)
class Tensors:
    """Pixels (N, 3, 32, 32), ids of names (N, L), what the decoder reads and says (N, L + 1), kind, version."""

    pixels: Tensor
    ids: Tensor
    spoken: Tensor
    target: Tensor
    kind: Tensor
    version: Tensor


def tensors(table: Table) -> Tensors:
    """A table as a model takes it."""
    ids = torch.from_numpy(encode(table.names.tolist()))
    said = F.pad(ids, (0, 1), value=PADDING)
    ends = (ids != PADDING).sum(dim=1, keepdim=True)
    target = said.scatter(1, ends, STOP)
    spoken = F.pad(ids, (1, 0), value=START)
    kind = torch.tensor([KINDS.index(kind) for kind in table.kinds])
    return Tensors(torch.from_numpy(scale(table.images)), ids, spoken, target, kind, torch.from_numpy(table.versions))
