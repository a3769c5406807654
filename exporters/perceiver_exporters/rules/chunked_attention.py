"""Reports where the pipeline runs a component piecewise, so that its scores never exist whole.

The graph of such a component is one piece by construction (`perceiver_deploy.models.chunked`): nothing is left to
rewrite, but what it spares belongs beside what the rules do.
"""

from __future__ import annotations

import onnx_ir as ir

from perceiver_exporters.rules.rule import Applied, Context, Declined, Rule, Verdict


def apply(_: ir.Model, context: Context) -> Verdict:
    """Say how the component is cut."""
    chunk = context.step.chunk
    if chunk is None:
        return Declined("runs whole")
    most = context.profile.dimensions[chunk.dimension].max
    state = f", {', '.join(context.step.carry.values())} carried from one to the next" if context.step.carry else ""
    return Applied(f"{chunk.size} of up to {most} {chunk.dimension} at a time{state}")


CHUNKED_ATTENTION = Rule("chunked-attention", "keys or queries some at a time, with a running log-sum-exp", apply)
