"""ONNX Runtime's arena, simulated: what a process holds after allocations and releases in a given order.

Memory is asked of the system in regions, each twice as large as the one before or as large as is needed (the default,
`kNextPowerOfTwo`), and never given back. A request takes the smallest free chunk that is large enough, which is split
if that leaves much; neighbours that are free become one chunk. What counts is what was written to: a region's pages
beyond its furthest chunk are no memory yet. Source: `onnxruntime/core/framework/bfc_arena.cc`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

ROUND = 256
FIRST_REGION = 1 << 20
MAX_FRAGMENT = 128 << 20
"""Bytes that may be left unused at the end of a chunk, unless as much as was asked for."""


@dataclass
class Chunk:
    """Bytes [start, start + size) of a region."""

    start: int
    size: int
    free: bool = True


@dataclass
class Region:
    """Chunks in order; `touched` is where the furthest of them ended."""

    chunks: list[Chunk]
    touched: int = 0


@dataclass
class Arena:
    """An empty arena."""

    regions: list[Region] = field(default_factory=list)
    next_region: int = FIRST_REGION

    @property
    def touched(self) -> int:
        """Bytes that were ever given out, as the system counts them."""
        return sum(region.touched for region in self.regions)

    def allocate(self, size: int) -> Chunk:
        """The chunk for so many bytes."""
        rounded = max(ROUND, -(-size // ROUND) * ROUND)
        fitting = [(c.size, i, c) for i, r in enumerate(self.regions) for c in r.chunks if c.free and c.size >= rounded]
        if not fitting:
            self._extend(rounded)
            return self.allocate(size)
        _, index, chunk = min(fitting, key=lambda each: each[:2])
        region = self.regions[index]
        if chunk.size >= 2 * rounded or chunk.size - rounded >= MAX_FRAGMENT:
            region.chunks.insert(region.chunks.index(chunk) + 1, Chunk(chunk.start + rounded, chunk.size - rounded))
            chunk.size = rounded
        chunk.free = False
        region.touched = max(region.touched, chunk.start + rounded)
        return chunk

    def release(self, chunk: Chunk) -> None:
        """Free it, and join it with its free neighbours."""
        chunk.free = True
        region = next(r for r in self.regions if any(c is chunk for c in r.chunks))
        joined: list[Chunk] = []
        for each in region.chunks:
            if joined and joined[-1].free and each.free:
                joined[-1].size += each.size
            else:
                joined.append(each)
        region.chunks = joined

    def _extend(self, rounded: int) -> None:
        grown = self.next_region < rounded
        while self.next_region < rounded:
            self.next_region *= 2
        self.regions.append(Region([Chunk(0, self.next_region)]))
        if not grown:
            self.next_region *= 2
