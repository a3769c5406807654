"""Streams of feeds: read anew in each pass, so that no one has to keep them in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

from perceiver_exporters.weights import samples_sha256
from perceiver_runtime.errors import DatasetError
from perceiver_runtime.tensors import Array

DIGEST = 8
"""Bytes kept of the hash of each feed: 100,000 feeds take 800 KB."""


class FeedStream(Protocol):
    """Feeds, as many as its length says and the same ones in every pass. A tuple of feeds is one."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Mapping[str, Array]]: ...


class Unchanging:
    """A stream whose feeds are hashed: a pass that differs from an earlier one is refused.

    Args:
        feeds: The stream.
        what: Its name in messages.
    """

    def __init__(self, feeds: FeedStream, what: str) -> None:
        self._feeds, self._what = feeds, what
        self._seen = bytearray()

    def __len__(self) -> int:
        return len(self._feeds)

    def __iter__(self) -> Iterator[Mapping[str, Array]]:
        """Raises DatasetError for feeds that differ from those of an earlier pass, or of another number."""
        index = -1
        for index, feeds in enumerate(self._feeds):
            if index >= len(self):
                raise self._changed(f"more than {len(self)}")
            digest = bytes.fromhex(samples_sha256([feeds]))[:DIGEST]
            known = bytes(self._seen[index * DIGEST : (index + 1) * DIGEST])
            if known and known != digest:
                raise self._changed(f"another one, number {index}, than in the pass before")
            if not known:
                self._seen += digest
            yield feeds
        if index + 1 != len(self):
            raise self._changed(f"{index + 1}")

    def _changed(self, got: str) -> DatasetError:
        return DatasetError(
            f"{self._what}: expected the same {len(self)} feeds in every pass, got {got}; the data must not "
            "change while they are read: fix the seed, and don't shuffle"
        )
