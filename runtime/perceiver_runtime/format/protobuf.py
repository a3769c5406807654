"""Fields of serialised Protocol Buffers. Format: https://protobuf.dev/programming-guides/encoding."""

from __future__ import annotations

from collections.abc import Iterator

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


def fields(data: bytes | memoryview) -> Iterator[tuple[int, int, int, int, int]]:
    """Number, wire type, start, start of the value, end of each field. Raises ValueError where there is none."""
    position, size = 0, len(data)
    while position < size:
        start = position
        tag, position = varint(data, position)
        wire = tag & 7
        body = position
        if wire == VARINT:
            _, position = varint(data, position)
        elif wire == BYTES:
            length, body = varint(data, position)
            position = body + length
        elif wire in (FIXED64, FIXED32):
            position += 8 if wire == FIXED64 else 4
        else:
            raise ValueError(f"wire type {wire} at byte {start}")
        if position > size:
            raise ValueError(f"a field at byte {start} is cut short")
        yield tag >> 3, wire, start, body, position


def varint(data: bytes | memoryview, position: int) -> tuple[int, int]:
    """The number at a position, and the position after it. Raises ValueError."""
    value = shift = 0
    while position < len(data) and shift < 70:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise ValueError(f"a number is cut short at byte {position}")


def field(number: int, content: bytes) -> bytes:
    """A field of bytes."""
    return tag(number, BYTES) + encoded(len(content)) + content


def tag(number: int, wire: int) -> bytes:
    """The tag of a field."""
    return encoded(number << 3 | wire)


def encoded(value: int) -> bytes:
    """A number from 0."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*out, value))
