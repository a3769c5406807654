"""ONNX Runtime's attention operator `com.microsoft.MultiHeadAttention`, and its shape inference.

    query (B, N, heads * E), key (B, M, heads * E), value (B, M, heads * F)  ->  (B, N, heads * F)

Heads are split and merged inside. The operator is not part of ONNX, so its schema is registered here, for shape
inference of the nodes that follow. Source: ContribOperators.md of ONNX Runtime.
"""

from __future__ import annotations

import onnx
import onnx_ir as ir
from onnx import defs

DOMAIN, OPERATOR, VERSION = "com.microsoft", "MultiHeadAttention", 1
OPERANDS = ("query", "key", "value")
_TYPES = ["tensor(float)", "tensor(float16)", "tensor(bfloat16)"]


def is_fused(node: ir.Node) -> bool:
    """Whether a node is MultiHeadAttention."""
    return node.domain == DOMAIN and node.op_type == OPERATOR


def operands(node: ir.Node) -> tuple[ir.Value | None, ...]:
    """Operands of a matrix product: its first two inputs, or queries, keys and values."""
    return tuple(node.inputs[: len(OPERANDS) if is_fused(node) else 2])


def register() -> None:
    """Register the operator's schema with `onnx`, as far as it is used here: three inputs, one output."""
    if defs.has(OPERATOR, DOMAIN):
        return
    schema = defs.OpSchema(
        OPERATOR,
        DOMAIN,
        VERSION,
        "Attention over heads side by side in the last axis.",
        inputs=[defs.OpSchema.FormalParameter(name, "T") for name in OPERANDS],
        outputs=[defs.OpSchema.FormalParameter("output", "T")],
        type_constraints=[("T", _TYPES, "")],
        attributes=[
            defs.OpSchema.Attribute("num_heads", defs.OpSchema.AttrType.INT, "", required=True),
            defs.OpSchema.Attribute("scale", defs.OpSchema.AttrType.FLOAT, "", required=False),
        ],
    )
    schema.set_type_and_shape_inference_function(_infer)
    defs.register_schema(schema)


def _infer(context: onnx.shape_inference.InferenceContext) -> None:
    """Output shape: rows of the queries, width of the values, batch of any operand that states it."""
    query, key, value = (context.get_input_type(index) for index in range(len(OPERANDS)))
    made = onnx.TypeProto()
    made.CopyFrom(query)
    told = [operand.tensor_type.shape.dim for operand in (query, key, value)]
    if all(len(dimensions) == 3 for dimensions in told):
        batches = (dimensions[0] for dimensions in told)
        batch = next((b for b in batches if b.HasField("dim_value") or b.HasField("dim_param")), None)
        if batch is not None:
            made.tensor_type.shape.dim[0].CopyFrom(batch)
        made.tensor_type.shape.dim[2].CopyFrom(told[2][2])
    else:
        made.tensor_type.ClearField("shape")
    context.set_output_type(0, made)


register()
