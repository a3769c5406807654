"""The rows of the specification (S1 to S12): module, components of the shipped emoji model, test."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Part:
    """A row of the specification: its module, the components of a bundle that hold it, and the test that covers it."""

    row: str
    what: str
    module: str
    components: tuple[str, ...]
    test: str


PARTS = (
    Part(
        "S1",
        "CNN encoder",
        "cnn.py",
        ("image_encoder",),
        "test_convolutional_encoder_is_its_layers_and_its_grid_is_known",
    ),
    Part(
        "S2",
        "recurrent encoder",
        "recurrent_encoder.py",
        ("text_encoder",),
        "test_recurrent_encoder_equals_packed_sequences",
    ),
    Part("S3", "scaled sinusoidal positions", "positions.py", ("image_encoder", "text_encoder"), "test_positions"),
    Part(
        "S4", "channel-wise attention", "channel_attention.py", ("image_encoder",), "test_channel_attention_per_sample"
    ),
    Part(
        "S5",
        "frequency-wise attention",
        "frequency_attention.py",
        ("image_encoder",),
        "test_frequency_attention_equals_torch_fft",
    ),
    Part("S6", "channel-wise linear", "channel_linear.py", ("image_encoder",), "test_channel_linear_groups_do_not_mix"),
    Part(
        "S7", "feature interaction", "interaction.py", ("encoder",), "test_interaction_weights_any_number_of_modalities"
    ),
    Part(
        "S8",
        "recurrent decoder",
        "decoder.py",
        ("name_begin", "name_step"),
        "test_greedy_generation_equals_pytorch_token_for_token",
    ),
    Part(
        "S9",
        "one trunk, several heads",
        "model.py",
        ("processor_block",),
        "test_fine_tuning_a_head_leaves_the_trunks_files_bit_identical",
    ),
    Part("S10", "sizes by config", "config.py", (), "test_every_size_is_config"),
    Part(
        "S11",
        "modalities and tasks",
        "heads.py",
        ("kind_head", "match_head", "version_head"),
        "test_a_missing_modality_may_be_left_out",
    ),
    Part(
        "S12",
        "evaluation",
        "../../evaluation.py",
        (),
        "test_classifier_and_regressor_are_evaluated_on_samples_of_their_own",
    ),
)
