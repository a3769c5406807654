"""Sizes of a Perceiver IO, in frozen data. Nothing below is hard-coded to one size (Jaegle et al. 2021, appendix)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CrossAttentionConfig:
    """One cross-attention layer with its MLP.

    `qk_dim` and `v_dim` are the total widths of queries/keys and values over all heads; `widening` is the MLP's
    hidden width over its input width, 0 for no MLP; `query_residual` adds the query to the attention's output.
    `gated` and `qkv_bias` tell the original Perceiver's layers (GEGLU, no biases) from those of Perceiver IO.
    """

    heads: int
    qk_dim: int
    v_dim: int
    widening: int = 1
    query_residual: bool = True
    gated: bool = False
    qkv_bias: bool = True


@dataclass(frozen=True)
class ProcessorConfig:
    """The latent trunk: `blocks` applications of one shared block of `layers` self-attention layers.

    `qk_dim` and `v_dim` are total widths over all heads; left out, they are the latent width. `gated` and
    `qkv_bias` as in `CrossAttentionConfig`.
    """

    blocks: int
    layers: int
    heads: int
    widening: int = 1
    qk_dim: int | None = None
    v_dim: int | None = None
    gated: bool = False
    qkv_bias: bool = True


@dataclass(frozen=True)
class PerceiverConfig:
    """`latents` (N) arrays of width `latent_dim` (D): `encoder` writes, `processor` refines, `decoder` reads them."""

    latents: int
    latent_dim: int
    encoder: CrossAttentionConfig
    processor: ProcessorConfig
    decoder: CrossAttentionConfig
