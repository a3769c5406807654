"""Parts of the hybrid family: module, components of the shipped emoji model, test."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Part:
    """A part of the family: its module, the components of a bundle that hold it, and the test that covers it."""

    what: str
    module: str
    components: tuple[str, ...]
    test: str


PARTS = (
    Part(
        "CNN encoder",
        "cnn.py",
        ("image_encoder",),
        "test_convolutional_encoder_is_its_layers_and_its_grid_is_known",
    ),
    Part(
        "recurrent encoder",
        "recurrent_encoder.py",
        ("text_encoder",),
        "test_recurrent_encoder_equals_packed_sequences",
    ),
    Part("scaled sinusoidal positions", "positions.py", ("image_encoder", "text_encoder"), "test_positions"),
    Part("channel-wise attention", "channel_attention.py", ("image_encoder",), "test_channel_attention_per_sample"),
    Part(
        "frequency-wise attention",
        "frequency_attention.py",
        ("image_encoder",),
        "test_frequency_attention_equals_torch_fft",
    ),
    Part("channel-wise linear", "channel_linear.py", ("image_encoder",), "test_channel_linear_groups_do_not_mix"),
    Part("feature interaction", "interaction.py", ("encoder",), "test_interaction_weights_any_number_of_modalities"),
    Part(
        "recurrent decoder",
        "decoder.py",
        ("name_begin", "name_step"),
        "test_greedy_generation_equals_pytorch_token_for_token",
    ),
    Part(
        "one trunk, several heads",
        "model.py",
        ("processor_block",),
        "test_fine_tuning_a_head_leaves_the_trunks_files_bit_identical",
    ),
    Part("sizes by config", "config.py", (), "test_every_size_is_config"),
    Part(
        "modalities and tasks",
        "heads.py",
        ("kind_head", "match_head", "version_head"),
        "test_a_missing_modality_may_be_left_out",
    ),
    Part(
        "evaluation",
        "../../api/evaluate.py",
        (),
        "test_classifier_and_regressor_are_evaluated_on_samples_of_their_own",
    ),
)
