"""Latents that many chunks of queries ask: their keys and values are made once, and are what encoding hands on."""

from __future__ import annotations

from perceiver_deploy.families.parts import Part, Specs, latents_spec, part
from perceiver_deploy.models.asking import Ask, KeysValues, value_width
from perceiver_deploy.models.perceiver import Perceiver
from perceiver_runtime.tensors import TensorSpec


def asked(perceiver: Perceiver) -> Specs:
    """The decoder's key (B, h, N, e) and value (B, h, N, f), see `models.asking`."""
    config, heads = perceiver.config, perceiver.config.decoder.heads
    widths = {
        "key": config.decoder.qk_dim // heads,
        "value": value_width(perceiver.decoder, config.latents) // heads,
    }
    return tuple(TensorSpec(name, "float32", ("batch", heads, config.latents, width)) for name, width in widths.items())


def begin_decoding(perceiver: Perceiver) -> Part:
    """The last step of encoding: latents to key and value."""
    module = KeysValues(perceiver.decoder, perceiver.config.latents)
    return part("decoder_begin", module, (latents_spec(perceiver.config),), asked(perceiver), "encode")


def ask(perceiver: Perceiver) -> Ask:
    """The decoder's attention to key and value."""
    return Ask(perceiver.decoder, perceiver.config.latents)
