"""Regions of a traced program: `torch.no_grad()` and disabled autocast around some operations are taken off."""

from __future__ import annotations

import operator
from typing import Any

from torch import fx

from perceiver_runtime.errors import CheckError

_GRADIENTS, _AUTOCAST = "wrap_with_set_grad_enabled", "wrap_with_autocast"
OPERANDS = {_GRADIENTS: 1, _AUTOCAST: 4}
"""Index of the region's graph among the arguments of its node; its operands follow."""


def inline_regions(module: fx.GraphModule) -> None:
    """Replace each region by its operations.

    Raises:
        CheckError: Autocast to another type: the export chooses the precision.
    """
    while (node := next((n for n in module.graph.nodes if _kind(n) in OPERANDS), None)) is not None:
        kind = _kind(node)
        if kind == _AUTOCAST and node.args[2]:
            raise CheckError(
                f"{node.args[0]} autocast to {str(node.args[1]).removeprefix('torch.')} can't be exported: the export "
                "chooses the precision (--precision); run the module without autocast"
            )
        _inline(module, node, OPERANDS[kind])


def _kind(node: fx.Node) -> str:
    return str(getattr(node.target, "__name__", "")) if node.op == "call_function" else ""


def _inline(module: fx.GraphModule, node: fx.Node, index: int) -> None:
    body, operands = node.args[index], node.args[index + 1 :]
    assert isinstance(body, fx.Node)
    region: fx.GraphModule = operator.attrgetter(str(body.target))(module)
    inputs = iter(operands)
    copies: dict[fx.Node, Any] = {}
    results: Any = ()
    with module.graph.inserting_before(node):
        for inner in region.graph.nodes:
            if inner.op == "placeholder":
                copies[inner] = next(inputs)
            elif inner.op == "output":
                results = fx.node.map_arg(inner.args[0], copies.__getitem__)
            elif inner.op == "get_attr":
                name = f"{body.target}.{inner.target}"
                copies[inner] = module.graph.get_attr(name)
                copies[inner].meta = dict(inner.meta)
            else:
                copies[inner] = module.graph.node_copy(inner, copies.__getitem__)
    for user in list(node.users):
        assert user.target is operator.getitem
        user.replace_all_uses_with(results[user.args[1]])
        module.graph.erase_node(user)
    module.graph.erase_node(node)
    if not body.users:
        module.graph.erase_node(body)
