"""What fields of a krasserm/perceiver-io config must be; the package writes all of them."""

from __future__ import annotations

from perceiver_deploy.checkpoints.fields import (
    BANDS,
    FLAG,
    HEADS,
    LAYERS,
    MAX_POINTS,
    OBJECT,
    PAIR,
    SIDE,
    VOCABULARY,
    WIDENING,
    WIDTH,
    Field,
    listed,
    optional,
    whole,
)

COUNTS = {"num_latents": Field(WIDTH), "num_latent_channels": Field(WIDTH)}
MODEL = {**COUNTS, "encoder": Field(OBJECT), "decoder": Field(OBJECT)}
CROSS_FIELDS = {
    "num_cross_attention_heads": Field(HEADS),
    "num_cross_attention_qk_channels": Field(optional(WIDTH)),
    "num_cross_attention_v_channels": Field(optional(WIDTH)),
    "cross_attention_widening_factor": Field(WIDENING),
}
ENCODER = {
    **CROSS_FIELDS,
    "num_cross_attention_layers": Field(LAYERS),
    "first_cross_attention_layer_shared": Field(FLAG, False),
    "num_self_attention_heads": Field(HEADS),
    "num_self_attention_qk_channels": Field(optional(WIDTH)),
    "num_self_attention_v_channels": Field(optional(WIDTH)),
    "num_self_attention_layers_per_block": Field(LAYERS),
    "num_self_attention_blocks": Field(LAYERS),
    "first_self_attention_block_shared": Field(FLAG),
    "self_attention_widening_factor": Field(WIDENING),
}
DECODER = {**CROSS_FIELDS, "cross_attention_residual": Field(FLAG)}
TOKENS = {
    "vocab_size": Field(VOCABULARY),
    "max_seq_len": Field(whole(1, MAX_POINTS)),
    "num_input_channels": Field(WIDTH),
}
CLASSES = {
    "num_output_queries": Field(whole(1, MAX_POINTS)),
    "num_output_query_channels": Field(WIDTH),
    "num_classes": Field(WIDTH),
}
IMAGE = {"image_shape": Field(listed(SIDE, range(3, 4))), "num_frequency_bands": Field(BANDS)}
PATCHES = {
    "image_shape": Field(PAIR),
    "num_frequency_bands": Field(BANDS),
    "num_patch_input_channels": Field(WIDTH),
    "num_patch_hidden_channels": Field(WIDTH),
}
