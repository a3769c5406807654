"""Memory of the SIMULATED device: host memory that notices out-of-bounds accesses and use after free.

Every block lies between red zones that are checked when it is freed and whenever the stream runs dry. A freed block is
overwritten and never given out again, so that an access through a stale address is seen for what it is.
"""

from __future__ import annotations

import bisect
import ctypes
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["device", "host", "mapped"]
ZONE = 256
RED, FREED, FRESH = 0xCD, 0xDD, 0x7F  # bytes of 0x7F make a NaN: what was never written must not look like a number


class SimulationError(AssertionError):
    """The code under test did what would corrupt memory, or crash, on a real device."""


@dataclass
class Block:
    """One allocation; `address` is behind the first red zone."""

    kind: Kind
    address: int
    size: int
    memory: Any
    live: bool = True


class Heap:
    """All memory of one simulated device."""

    def __init__(self, capacity: int = 1 << 30) -> None:
        self.capacity = capacity
        self._blocks: list[Block] = []  # sorted by address
        self._addresses: list[int] = []

    @property
    def in_use(self) -> int:
        """Bytes of live device memory."""
        return sum(block.size for block in self._blocks if block.live and block.kind == "device")

    @property
    def live(self) -> int:
        """Number of live blocks of either kind."""
        return sum(block.live for block in self._blocks)

    def allocate(self, kind: Kind, size: int) -> int | None:
        """Address of a new block, or None if the device is full."""
        if kind == "device" and self.in_use + size > self.capacity:
            return None
        memory = (ctypes.c_ubyte * (size + 2 * ZONE))()
        start = ctypes.addressof(memory)
        ctypes.memset(start, RED, size + 2 * ZONE)
        ctypes.memset(start + ZONE, FRESH, size)
        index = bisect.bisect(self._addresses, start + ZONE)
        self._addresses.insert(index, start + ZONE)
        self._blocks.insert(index, Block(kind, start + ZONE, size, memory))
        return start + ZONE

    def free(self, kind: Kind, address: int) -> None:
        """Give a block back."""
        block = self._at(address, 0, kind)
        if block.address != address:
            raise SimulationError(f"free of {address:#x}, which is inside of a block")
        self._check_zones(block)
        block.live = False
        ctypes.memset(address, FREED, block.size)

    def check(self, address: int, size: int, kind: Kind | None) -> None:
        """Raise SimulationError unless all of [address, address + size) is one live block's, of that kind if given."""
        self._at(address, size, kind)

    def kind(self, address: int) -> Kind | None:
        """Kind of the live block that an address is in."""
        try:
            return self._at(address, 0, None).kind
        except SimulationError:
            return None

    def check_zones(self) -> None:
        """Raise SimulationError if anything was written beside a live block."""
        for block in self._blocks:
            if block.live:
                self._check_zones(block)

    def _at(self, address: int, size: int, kind: Kind | None) -> Block:
        index = bisect.bisect(self._addresses, address) - 1
        block = self._blocks[index] if index >= 0 else None
        if block is None or address > block.address + block.size:
            raise SimulationError(f"access to {address:#x}, which was never allocated")
        if not block.live:
            raise SimulationError(f"use after free: {size} bytes at {address:#x}")
        if kind is not None and block.kind != kind:
            raise SimulationError(f"{block.kind} memory at {address:#x} used as {kind} memory")
        if address + size > block.address + block.size:
            raise SimulationError(
                f"out of bounds: {size} bytes at {address:#x}, block ends {block.address + block.size:#x}"
            )
        return block

    def _check_zones(self, block: Block) -> None:
        content = bytes(block.memory)
        if content[:ZONE].strip(bytes([RED])) or content[ZONE + block.size :].strip(bytes([RED])):
            raise SimulationError(f"out of bounds: something wrote beside the block at {block.address:#x}")
