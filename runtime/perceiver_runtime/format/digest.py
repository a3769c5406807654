"""Digest of a bundle: SHA-256 of `manifest.json`, which lists the SHA-256 of every other file.

The digest stands in the manifest itself, so it covers the file's bytes without its own value:

    sed 's/^  "digest": ".*"/  "digest": ""/' manifest.json | sha256sum
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from perceiver_runtime.errors import BundleError

FIELD = "digest"
_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)
_EMPTY = f'\n  "{FIELD}": ""'


def sealed(text: str) -> tuple[str, str]:
    """A manifest whose digest is empty, as text with its digest; and the digest."""
    digest = hashlib.sha256(text.encode()).hexdigest()
    return text.replace(_EMPTY, f'{_EMPTY[:-1]}{digest}"', 1), digest


def checked(data: bytes, stored: object, path: Path) -> str:
    """The digest of a manifest's bytes.

    Args:
        data: Content of the file.
        stored: The digest that it states; empty in bundles of earlier versions.
        path: Its path, for messages.

    Returns:
        The digest, computed.

    Raises:
        BundleError: The stated digest is another one.
    """
    if stored == "":
        return hashlib.sha256(data).hexdigest()
    if not isinstance(stored, str) or not _DIGEST.fullmatch(stored) or data.count(own := stored.encode()) != 1:
        raise BundleError(f"{path}: digest: expected 64 digits that occur once, got {stored!r:.80}; copy the bundle")
    digest = hashlib.sha256(data.replace(own, b"")).hexdigest()
    if digest != stored:
        raise BundleError(
            f"{path}: expected digest {stored}, got {digest}; the file was changed or damaged: copy the bundle again"
        )
    return digest
