"""Replace references to external data in ONNX graphs, working on the serialised bytes.

A backend that is given a path opens the weights by name, without checking their hash. It is given bytes instead, in
which every reference points to data that was opened and hashed: a file descriptor, an address, or the data itself.
Format: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto, field `external_data`.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable, Iterator
from typing import NamedTuple

from perceiver_runtime.bundle import Bundle
from perceiver_runtime.errors import BundleError
from perceiver_runtime.format.files import HeldFile
from perceiver_runtime.format.graph_limits import MAX_DEPTH, check_limits
from perceiver_runtime.format.protobuf import BYTES, VARINT, encoded, field, fields, tag, varint

ADDRESS = "*/_ORT_MEM_ADDR_/*"
"""A location by which OpenVINO copies from this process' memory: the offset is an address."""
MIN_MAPPED = 16 << 20
"""Bytes of a file that is worth mapping. Of a smaller one, a change in place may be hidden by the clock's ticks."""


class External(NamedTuple):
    """A range of a file; `length` 0 means up to its end."""

    location: str
    offset: int
    length: int


Place = Callable[[External], "External | bytes"]
"""Where a tensor is to be read instead, or its data."""

# Message types by the numbers of the fields that lead to tensors, and whether a field may occur once only.
_MESSAGES: dict[str, dict[int, tuple[str, bool]]] = {
    "model": {7: ("graph", True), 20: ("training", False), 25: ("function", False)},
    "training": {1: ("graph", True), 2: ("graph", True)},
    "function": {7: ("node", False), 11: ("attribute", False)},
    "graph": {1: ("node", False), 5: ("tensor", False), 15: ("sparse", False)},
    "node": {5: ("attribute", False)},
    "attribute": {
        5: ("tensor", True),
        6: ("graph", True),
        10: ("tensor", False),
        11: ("graph", False),
        22: ("sparse", True),
        23: ("sparse", False),
    },
    "sparse": {1: ("tensor", True), 2: ("tensor", True)},
}
_RAW_DATA, _EXTERNAL_DATA, _DATA_LOCATION = 9, 13, 14
_EXTERNAL = 1


def relocate(graph: bytes, place: Place) -> bytes:
    """The graph with all external data relocated by `place`. Raises ValueError if it is no ONNX graph."""
    if b"location" not in graph:  # the key that every reference has
        return graph
    return _rewritten(memoryview(graph), "model", place, 0) or graph


@contextlib.contextmanager
def linked(bundle: Bundle, onnx: str, graph: bytes) -> Iterator[bytes]:
    """Yield the graph with file descriptors as locations, relative to `/` and valid inside of the block.

    Mapped files are watched for changes; data of small files is included in the graph.
    """
    with contextlib.ExitStack() as stack:
        descriptors: dict[HeldFile, int] = {}
        contents: dict[HeldFile, bytes] = {}

        def place(data: External) -> External | bytes:
            file = _weights(bundle, onnx, data)
            if file.size < MIN_MAPPED:
                return _cut(contents, file, data)
            if file not in descriptors:
                descriptors[file] = stack.enter_context(file.descriptor())
                bundle.watch(file)
            return External(f"proc/self/fd/{descriptors[file]}", data.offset, data.length)

        yield _relocated(bundle, onnx, graph, place)
        for file in descriptors:
            file.check()


@contextlib.contextmanager
def addressed(bundle: Bundle, onnx: str, graph: bytes) -> Iterator[bytes]:
    """Yield the graph with addresses in this process as locations, valid inside of the block."""
    contents: dict[HeldFile, bytes] = {}

    def place(data: External) -> External:
        file = _weights(bundle, onnx, data)
        if file not in contents:
            contents[file] = file.read() if file.size < MIN_MAPPED else file.read_unhashed()
        address = ctypes.cast(ctypes.c_char_p(contents[file]), ctypes.c_void_p).value or 0
        return External(ADDRESS, address + data.offset, data.length or file.size - data.offset)

    yield _relocated(bundle, onnx, graph, place)
    for file in contents:
        file.check()


def inlined(bundle: Bundle, onnx: str, graph: bytes) -> bytes:
    """The graph with all data included, which every backend reads."""
    contents: dict[HeldFile, bytes] = {}
    return _relocated(bundle, onnx, graph, lambda data: _cut(contents, _weights(bundle, onnx, data), data))


def external_files(bundle: Bundle, onnx: str, graph: bytes) -> dict[str, bytes]:
    """Contents of the files that a graph refers to, by location."""
    contents: dict[str, bytes] = {}

    def place(data: External) -> External:
        file = _weights(bundle, onnx, data)
        if data.location not in contents:
            contents[data.location] = file.read()
        return data

    _relocated(bundle, onnx, graph, place)
    return contents


def checked(bundle: Bundle, onnx: str, graph: bytes) -> bytes:
    """The unchanged graph, if all files that it refers to are listed. Raises BundleError."""

    def place(data: External) -> External:
        _weights(bundle, onnx, data)
        return data

    return _relocated(bundle, onnx, graph, place)


def _cut(contents: dict[HeldFile, bytes], file: HeldFile, data: External) -> bytes:
    if file not in contents:
        contents[file] = file.read()
    return contents[file][data.offset : data.offset + data.length if data.length else file.size]


def _relocated(bundle: Bundle, onnx: str, graph: bytes, place: Place) -> bytes:
    try:
        check_limits(graph)
        return relocate(graph, place)
    except ValueError as error:
        raise BundleError(f"{bundle.file(onnx)}: can't load it: no ONNX graph: {error}; export again") from error


def _weights(bundle: Bundle, onnx: str, data: External) -> HeldFile:
    file = bundle.weights(onnx, data.location)
    if not 0 <= data.offset <= data.offset + data.length <= file.size:
        raise BundleError(
            f"{bundle.file(onnx)}: can't load it: it reads bytes {data.offset} to {data.offset + data.length} of "
            f"{file.path.name}, which has {file.size}; export again"
        )
    return file


def _rewritten(data: memoryview, kind: str, place: Place, depth: int) -> bytes | None:
    """A message with its tensors' data placed, or None if it has none to place."""
    if depth > MAX_DEPTH:
        raise ValueError(f"nested more than {MAX_DEPTH} deep")
    if kind == "tensor":
        return _tensor(data, place)
    children = _MESSAGES[kind]
    out: list[bytes | memoryview] = []
    done, seen, changed = 0, set(), False
    for number, wire, start, body, end in fields(data):
        if number not in children or wire != BYTES:
            continue
        child, once = children[number]
        if once and number in seen:
            raise ValueError(f"field {number} of a {kind} occurs twice")
        seen.add(number)
        if (new := _rewritten(data[body:end], child, place, depth + 1)) is not None:
            out += (data[done:start], field(number, new))
            done, changed = end, True
    return b"".join((*out, data[done:])) if changed else None


def _tensor(data: memoryview, place: Place) -> bytes | None:
    entries: dict[str, str] = {}
    out: list[bytes | memoryview] = []
    external = False
    for number, wire, start, body, end in fields(data):
        if number == _EXTERNAL_DATA and wire == BYTES:
            pair = {n: bytes(data[body:end][b:e]).decode() for n, w, _, b, e in fields(data[body:end]) if w == BYTES}
            if pair.get(1, "") in entries:
                raise ValueError(f"external data gives {pair.get(1)!r:.40} twice")
            entries[pair.get(1, "")] = pair.get(2, "")
        elif number == _DATA_LOCATION and wire == VARINT:
            external = varint(data, body)[0] == _EXTERNAL
        else:
            out.append(data[start:end])
    if not external:
        return b"".join(out) if entries else None
    new = place(External(entries.get("location", ""), int(entries.get("offset", 0)), int(entries.get("length", 0))))
    if isinstance(new, bytes):
        return b"".join((*out, field(_RAW_DATA, new)))
    out += (
        field(_EXTERNAL_DATA, field(1, key.encode()) + field(2, str(value).encode()))
        for key, value in new._asdict().items()
        if key != "length" or value
    )
    return b"".join((*out, tag(_DATA_LOCATION, VARINT), encoded(_EXTERNAL)))
