"""The rules in use, in the order of their ids. An id is never given to another rule."""

from __future__ import annotations

from perceiver_exporters.preflight import attention_rules, bundle_rules, graph_rules, memory
from perceiver_exporters.preflight.rule import Rule

RULES = (
    Rule(
        "PF001",
        "operators that TensorRT can't import",
        "export for this target, at opset 20; a DFT is a product with constant matrices",
        graph_rules.operators,
    ),
    Rule(
        "PF002",
        "asymmetric or unsigned quantisation",
        "export int8 for this target: --precision int8 --target TARGET quantises symmetrically to INT8",
        graph_rules.zero_points,
    ),
    Rule(
        "PF003",
        "biases quantised to INT32",
        "export int8 for this target, which leaves biases in floating point",
        graph_rules.integer_biases,
    ),
    Rule(
        "PF004",
        "no profile for dynamic shapes",
        "export again: the cut of the model must give a profile",
        bundle_rules.missing_profile,
    ),
    Rule(
        "PF005",
        "a dynamic axis without a range",
        "add the axis to the profile of the cut, or make it a fixed size, and export again",
        bundle_rules.axes_without_range,
    ),
    Rule(
        "PF006",
        "ONNX Attention in FP32",
        "export fp16, or export at opset 20, where attention is decomposed",
        attention_rules.single_precision,
    ),
    Rule(
        "PF007",
        "a precision that the board does not compute in",
        "export in a precision of the target",
        graph_rules.precision,
    ),
    Rule(
        "PF008",
        "more keys than an FP16 softmax can count",
        "keep the softmax in FP32, or give the keys in chunks",
        attention_rules.keys,
    ),
    Rule(
        "PF009",
        "an operator set newer than the parser",
        "export again for this target, at opset 20",
        graph_rules.opset,
    ),
    Rule(
        "PF010",
        "more memory than the board has",
        "use smaller chunks or a smaller largest batch, fp16 or int8, or a larger board",
        memory.fits,
    ),
    Rule(
        "PF011",
        "engines for another GPU",
        "build again on the device: perceiver-run build BUNDLE",
        bundle_rules.compute_capability,
    ),
    Rule(
        "PF012",
        "engines of another TensorRT",
        "build again with the target's TensorRT: perceiver-run build BUNDLE on the device",
        bundle_rules.tensorrt_major,
    ),
    Rule(
        "PF013",
        "head widths that no fused attention kernel takes",
        "expect unfused attention; chunk keys or queries to bound the score matrix",
        attention_rules.head_width,
    ),
    Rule(
        "PF014",
        "types that TensorRT does not have",
        "cast to FP32, INT64 or BOOL in the model",
        graph_rules.types,
    ),
)
