"""Simulation of ONNX Runtime's memory arena: resident bytes after allocations and releases in a given order.

The arena allocates regions from the system, each twice as large as the previous one or as large as needed (the default
strategy, `kNextPowerOfTwo`), and never returns them. A request takes the smallest free block that is large enough and
splits it if much remains; adjacent free blocks are merged. Pages count as resident once used: those of a region beyond
its furthest block do not. Source: `onnxruntime/core/framework/bfc_arena.cc`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

ROUND = 256
FIRST_REGION = 1 << 20
MAX_FRAGMENT = 128 << 20
"""Bytes that may stay unused at the end of a block, unless as much as was requested."""


@dataclass
class Block:
    """Bytes [start, start + size) of a region."""

    start: int
    size: int
    free: bool = True


@dataclass
class Region:
    """Blocks in order; `touched` is the largest end of a block that was in use."""

    blocks: list[Block]
    touched: int = 0


@dataclass
class Arena:
    """An arena, initially empty."""

    regions: list[Region] = field(default_factory=list)
    next_region: int = FIRST_REGION

    @property
    def touched(self) -> int:
        """Resident bytes: those that were ever allocated."""
        return sum(region.touched for region in self.regions)

    def allocate(self, size: int) -> Block:
        """Allocate a block of at least `size` bytes."""
        rounded = max(ROUND, -(-size // ROUND) * ROUND)
        fitting = [(c.size, i, c) for i, r in enumerate(self.regions) for c in r.blocks if c.free and c.size >= rounded]
        if not fitting:
            self._extend(rounded)
            return self.allocate(size)
        _, index, block = min(fitting, key=lambda each: each[:2])
        region = self.regions[index]
        if block.size >= 2 * rounded or block.size - rounded >= MAX_FRAGMENT:
            region.blocks.insert(region.blocks.index(block) + 1, Block(block.start + rounded, block.size - rounded))
            block.size = rounded
        block.free = False
        region.touched = max(region.touched, block.start + rounded)
        return block

    def release(self, block: Block) -> None:
        """Free a block and merge it with adjacent free blocks."""
        block.free = True
        region = next(r for r in self.regions if any(c is block for c in r.blocks))
        joined: list[Block] = []
        for each in region.blocks:
            if joined and joined[-1].free and each.free:
                joined[-1].size += each.size
            else:
                joined.append(each)
        region.blocks = joined

    def _extend(self, rounded: int) -> None:
        grown = self.next_region < rounded
        while self.next_region < rounded:
            self.next_region *= 2
        self.regions.append(Region([Block(0, self.next_region)]))
        if not grown:
            self.next_region *= 2
