"""The attention layers every Perceiver is made of (Jaegle et al. 2021, section 3.1 and figure 2).

Shapes: B batch, N queries or latents, M inputs, C input width, D latent width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perceiver_deploy.models.config import CrossAttentionConfig, ProcessorConfig

LOWEST_SCORE, HIGHEST_SCORE = -65504.0, 65504.0
"""The finite range of FP16: no score is outside it."""


def score_limit(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Upper limits (B, 1, 1, M) of scores (B, heads, N, M) under a mask (B, M), true where an input may be attended.

    A masked score becomes the lowest there is, whatever it was: its weight is zero, and a query whose inputs are all
    masked attends all of them equally, as with `masked_fill`. Nothing is added to a score, so FP16 can't overflow.
    """
    return torch.where(mask, HIGHEST_SCORE, LOWEST_SCORE).to(dtype)[:, None, None, :]


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """Heads of queries (B or 1, h, N, e), keys (B, h, M, e) and values (B, h, M, f) to (B, h, N, f).

    `mask` (B, M) is true where an input may be attended; a row in which it never is attends all inputs equally.
    """
    if query.shape[0] == 1:  # queries shared by the batch are projected once
        query = query.expand(key.shape[0], -1, -1, -1)
    if mask is None:
        return F.scaled_dot_product_attention(query, key, value)
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
    return torch.softmax(torch.minimum(scores, score_limit(mask, scores.dtype)), dim=-1) @ value


class Attention(nn.Module):
    """Multi-head attention whose queries, keys/values and output may each have their own width.

    Scores are scaled by 1/sqrt(qk_dim / heads). `mask` (B, M) is true where an input may be attended.
    """

    def __init__(
        self, q_dim: int, kv_dim: int, out_dim: int, qk_dim: int, v_dim: int, heads: int, qkv_bias: bool = True
    ) -> None:
        super().__init__()
        if qk_dim % heads or v_dim % heads:
            raise ValueError(f"qk_dim {qk_dim} and v_dim {v_dim} must be multiples of heads {heads}")
        self.heads = heads
        self.query = nn.Linear(q_dim, qk_dim, bias=qkv_bias)
        self.key = nn.Linear(kv_dim, qk_dim, bias=qkv_bias)
        self.value = nn.Linear(kv_dim, v_dim, bias=qkv_bias)
        self.output = nn.Linear(v_dim, out_dim)

    def forward(self, q: Tensor, kv: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attend from q (B or 1, N, q_dim) to kv (B, M, kv_dim): (B, N, out_dim)."""
        query, (key, value) = self.queries(q), self.keys_values(kv)
        return self.merge(attend(query, key, value, mask))

    def queries(self, q: Tensor) -> Tensor:
        """Project q (B, N, q_dim) to heads (B, heads, N, qk_dim / heads)."""
        return self.split(self.query(q))

    def keys_values(self, kv: Tensor) -> tuple[Tensor, Tensor]:
        """Project kv (B, M, kv_dim) to heads (B, heads, M, qk_dim / heads) and (B, heads, M, v_dim / heads)."""
        return self.split(self.key(kv)), self.split(self.value(kv))

    def merge(self, attended: Tensor) -> Tensor:
        """Join heads (B, heads, N, v_dim / heads) and project them: (B, N, out_dim)."""
        merged: Tensor = self.output(attended.transpose(1, 2).flatten(2))
        return merged

    def split(self, x: Tensor) -> Tensor:
        """Projections (B, M, width) by head: (B, heads, M, width / heads)."""
        return x.reshape(*x.shape[:2], self.heads, -1).transpose(1, 2)


class Mlp(nn.Sequential):
    """Two linear layers around an exact (erf) GELU; the width is kept: (B, N, D) to (B, N, D)."""

    def __init__(self, dim: int, widening: int) -> None:
        super().__init__(nn.Linear(dim, dim * widening), nn.GELU(), nn.Linear(dim * widening, dim))


class GatedMlp(nn.Module):
    """Two linear layers around a GELU-gated product (GEGLU, Shazeer 2020): (B, N, D) to (B, N, D)."""

    def __init__(self, dim: int, widening: int) -> None:
        super().__init__()
        self.expand = nn.Linear(dim, 2 * dim * widening)
        self.contract = nn.Linear(dim * widening, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Gate the first half of the hidden units by the second."""
        hidden, gate = self.expand(x).chunk(2, dim=-1)
        contracted: Tensor = self.contract(hidden * F.gelu(gate))
        return contracted


def mlp(dim: int, widening: int, gated: bool) -> nn.Module:
    """The MLP of a layer's kind."""
    return GatedMlp(dim, widening) if gated else Mlp(dim, widening)


class CrossAttentionLayer(nn.Module):
    """Pre-norm cross-attention and MLP: (B, N, q_dim) asks (B, M, kv_dim) and keeps its own shape.

    Queries of batch 1 stand for the same queries in every row of the batch.
    """

    def __init__(self, q_dim: int, kv_dim: int, config: CrossAttentionConfig) -> None:
        super().__init__()
        self.query_residual = config.query_residual
        self.query_norm = nn.LayerNorm(q_dim)
        self.input_norm = nn.LayerNorm(kv_dim)
        self.attention = Attention(q_dim, kv_dim, q_dim, config.qk_dim, config.v_dim, config.heads, config.qkv_bias)
        self.has_mlp = config.widening > 0
        if self.has_mlp:
            self.mlp_norm = nn.LayerNorm(q_dim)
            self.mlp = mlp(q_dim, config.widening, config.gated)

    def forward(self, query: Tensor, inputs: Tensor, mask: Tensor | None = None) -> Tensor:
        """Update query (B or 1, N, q_dim) from inputs (B, M, kv_dim), where mask (B, M) is true: (B, N, q_dim)."""
        attended = self.attention(self.query_norm(query), self.input_norm(inputs), mask)
        return self.update(query, attended)

    def update(self, query: Tensor, attended: Tensor) -> Tensor:
        """What follows the attention: the query's residual, if configured, and the MLP's."""
        x = query + attended if self.query_residual else attended
        return x + self.mlp(self.mlp_norm(x)) if self.has_mlp else x


class SelfAttentionLayer(nn.Module):
    """Pre-norm self-attention and MLP among latents: (B, N, D) to (B, N, D)."""

    def __init__(self, dim: int, config: ProcessorConfig) -> None:
        super().__init__()
        qk_dim = dim if config.qk_dim is None else config.qk_dim
        v_dim = dim if config.v_dim is None else config.v_dim
        self.norm = nn.LayerNorm(dim)
        self.attention = Attention(dim, dim, dim, qk_dim, v_dim, config.heads, config.qkv_bias)
        self.mlp_norm = nn.LayerNorm(dim)
        self.mlp = mlp(dim, config.widening, config.gated)

    def forward(self, x: Tensor) -> Tensor:
        """One layer over latents (B, N, D)."""
        normed = self.norm(x)
        x = x + self.attention(normed, normed)
        return x + self.mlp(self.mlp_norm(x))  # type: ignore[no-any-return]


class ProcessorBlock(nn.Sequential):
    """The self-attention layers of one block; a Perceiver applies the same block `ProcessorConfig.blocks` times."""

    def __init__(self, dim: int, config: ProcessorConfig) -> None:
        super().__init__(*(SelfAttentionLayer(dim, config) for _ in range(config.layers)))


def initialise(module: nn.Module, std: float = 0.02) -> None:
    """Normal weights and zero biases for every linear layer, as the released models were initialised."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            torch.nn.init.normal_(layer.weight, std=std)
            if layer.bias is not None:
                torch.nn.init.zeros_(layer.bias)
