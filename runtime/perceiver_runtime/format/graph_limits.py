"""Limits on an ONNX graph, checked on its bytes before a parser sees it: nodes with those of called functions, nesting.

A parser replaces each call of a function by the function's nodes: 30 functions that call the one before twice are 2^30
nodes, in 3 kB. Format: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from perceiver_runtime.format.protobuf import BYTES, fields

MAX_NODES = 50_000
"""Of a graph, with its subgraphs and the functions that it calls."""
MAX_FIELDS = 750_000
"""Of all messages that lead to nodes; looking at one takes less than a microsecond."""
MAX_DEPTH = 100
"""Of messages within each other, and of functions that call functions."""
MAX_SUBGRAPHS = 8
"""Of graphs within each other: the time of parsers is exponential in it."""
_GRAPH, _FUNCTION = 7, 25
_MESSAGES: Mapping[str, Mapping[int, str]] = {
    "graph": {1: "node"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {6: "graph", 11: "graph"},
}
"""Messages by the numbers of the fields that lead to nodes."""
_NAMES = {"node": {4: "name", 7: "domain"}, "function": {1: "name", 10: "domain"}}
Name = tuple[bytes, bytes]
"""Name and domain of an operator or a function."""


def check_limits(graph: bytes) -> None:
    """Raise ValueError for a graph beyond the limits, or bytes that are none."""
    count = _Count()
    own: Counter[Name] = Counter()
    functions: dict[Name, Counter[Name]] = defaultdict(Counter)
    view = memoryview(graph)
    for number, wire, _, body, end in fields(view):
        if wire == BYTES and number == _GRAPH:
            count.walk(view[body:end], "graph", own, 0)
        elif wire == BYTES and number == _FUNCTION:
            nodes: Counter[Name] = Counter()
            functions[count.walk(view[body:end], "function", nodes, 0)].update(nodes)
    if functions:
        _Calls(functions).nodes(own, 0)


@dataclass
class _Count:
    """What was seen of all messages."""

    fields: int = 0
    nodes: int = 0

    def walk(self, message: memoryview, kind: str, nodes: Counter[Name], depth: int) -> Name:
        """Count the nodes in a message by their operators; answer its name and domain."""
        if depth > 3 * MAX_SUBGRAPHS:  # a graph, its node, the node's attribute
            raise ValueError(f"subgraphs nested more than {MAX_SUBGRAPHS} deep")
        children, names = _MESSAGES[kind], _NAMES.get(kind, {})
        found = {"name": b"", "domain": b""}
        for number, wire, _, body, end in fields(message):
            self.fields += 1
            if self.fields > MAX_FIELDS:
                raise ValueError(f"more than {MAX_FIELDS:,} fields in nodes")
            if wire != BYTES:
                continue
            if number in children:
                self.walk(message[body:end], children[number], nodes, depth + 1)
            elif number in names:
                found[names[number]] = bytes(message[body:end])
        name = found["name"], found["domain"]
        if kind == "node":
            self.nodes += 1
            nodes[name] += 1
            if self.nodes > MAX_NODES:
                raise ValueError(f"more than {MAX_NODES:,} nodes")
        return name


@dataclass
class _Calls:
    """Functions of a model, with the nodes of each by operator."""

    functions: Mapping[Name, Counter[Name]]
    known: dict[Name, int] = field(default_factory=dict)

    def nodes(self, called: Counter[Name], depth: int) -> int:
        """Nodes once calls are replaced. Raises ValueError for too many, and for functions that call themselves."""
        if depth > MAX_DEPTH:
            raise ValueError(f"functions call each other more than {MAX_DEPTH} deep, or themselves")
        total = 0
        for name, times in called.items():
            if name in self.functions and name not in self.known:
                self.known[name] = self.nodes(self.functions[name], depth + 1)
            total += times * (1 + self.known.get(name, 0))
            if total > MAX_NODES:
                raise ValueError(f"more than {MAX_NODES:,} nodes once its functions are called")
        return total
