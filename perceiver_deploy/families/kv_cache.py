"""KV cache of the latents: the last encode step projects keys and values once for all chunks of queries."""

from __future__ import annotations

from perceiver_deploy.families.components import ComponentStep, Specs, component, latents_spec
from perceiver_deploy.models.kv_cache import CachedCrossAttention, ProjectKV, value_width
from perceiver_deploy.models.perceiver import Perceiver
from perceiver_runtime.tensors import TensorSpec


def kv_specs(perceiver: Perceiver) -> Specs:
    """The decoder's key (B, h, N, e) and value (B, h, N, f), see `models.kv_cache`."""
    config, heads = perceiver.config, perceiver.config.decoder.heads
    widths = {
        "key": config.decoder.qk_dim // heads,
        "value": value_width(perceiver.decoder, config.latents) // heads,
    }
    return tuple(TensorSpec(name, "float32", ("batch", heads, config.latents, width)) for name, width in widths.items())


def project_kv(perceiver: Perceiver) -> ComponentStep:
    """The last encode step: latents (B, N, D) to key and value."""
    module = ProjectKV(perceiver.decoder, perceiver.config.latents)
    return component("decoder_begin", module, (latents_spec(perceiver.config),), kv_specs(perceiver), "encode")


def cached_attention(perceiver: Perceiver) -> CachedCrossAttention:
    """The decoder's cross-attention to cached keys and values."""
    return CachedCrossAttention(perceiver.decoder, perceiver.config.latents)
