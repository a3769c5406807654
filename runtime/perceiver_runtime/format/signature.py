r"""Signatures of bundles: Ed25519 (RFC 8032) over a bundle's digest, which covers every file.

The signature is the file `signature.ed25519` at the top of the bundle: 64 bytes, of the message

    perceiver bundle signature 1\n<digest>\n

The first line keeps a signature from being taken for one of something else, and has the version of the format.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perceiver_runtime.errors import SignatureError, UnavailableError, UsageError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

SIGNATURE_NAME = "signature.ed25519"
SIGNATURE_BYTES = 64
INSTALL = "pip install 'perceiver-runtime[signing]'"
PublicKeys = str | Path | Sequence[str | Path]
"""One file with a public key in PEM, or several, of which each is trusted."""
_MESSAGE = "perceiver bundle signature 1\n{}\n"


def message(digest: str) -> bytes:
    """The bytes that are signed for a bundle of that digest."""
    return _MESSAGE.format(digest).encode("ascii")


def sign(digest: str, key: Path) -> tuple[bytes, str]:
    """Sign a digest.

    Args:
        digest: Digest of a bundle.
        key: File with a private key, PKCS#8 in PEM.

    Returns:
        The signature, and the fingerprint of the public key.

    Raises:
        SignatureError: The file has no Ed25519 private key, or an encrypted one.
        UnavailableError: `cryptography` is not installed.
    """
    private = _key(key, "private")
    return private.sign(message(digest)), _fingerprint(private.public_key())


def check_signature(signature: bytes | None, digest: str, keys: PublicKeys, path: Path) -> None:
    """Check that one of some keys has signed a bundle.

    Args:
        signature: Content of the bundle's signature, or None if it has none.
        digest: Digest of the bundle as it was read.
        keys: Files with public keys, one of which must have signed.
        path: Path of the bundle, for messages.

    Raises:
        SignatureError: There is no signature, or it is not by any of the keys over this digest; a key is none.
        UsageError: No key is named.
        UnavailableError: `cryptography` is not installed.
    """
    from_files = [Path(keys)] if isinstance(keys, (str, Path)) else [Path(key) for key in keys]
    if not from_files:
        raise UsageError("require_signature: expected one public key or more, got none")
    trusted = [_key(file, "public") for file in from_files]
    known = ", ".join(f"{file} ({_fingerprint(key)})" for file, key in zip(from_files, trusted, strict=True))
    if signature is None:
        raise SignatureError(
            f"{path}: expected a signature by {known}, got a bundle without {SIGNATURE_NAME}; "
            "sign it (building engines removes a signature), or get a signed copy"
        )
    if len(signature) != SIGNATURE_BYTES:
        size = f"{len(signature)} bytes" if len(signature) < SIGNATURE_BYTES else "more"
        raise SignatureError(f"{path / SIGNATURE_NAME}: expected {SIGNATURE_BYTES} bytes, got {size}; sign it again")
    if not any(_signed(key, signature, digest) for key in trusted):
        raise SignatureError(
            f"{path}: expected a signature by {known} of the digest {digest}; got one by another key, or of other "
            "content: the bundle was changed after it was signed, or is not of that origin. Get it again"
        )


def _signed(key: Ed25519PublicKey, signature: bytes, digest: str) -> bool:
    from cryptography.exceptions import InvalidSignature

    try:
        key.verify(signature, message(digest))
    except InvalidSignature:
        return False
    return True


def _key(path: Path, kind: str) -> Any:
    """The Ed25519 key of a file. Raises SignatureError, UnavailableError."""
    wanted, load = _loader(kind)
    try:
        key = load(path.read_bytes())
    except TypeError as error:  # what cryptography raises for a missing password
        raise SignatureError(
            f"{path}: expected a key without a password; pass `openssl pkey -in {path}` through a pipe to /dev/stdin"
        ) from error
    except Exception as error:
        if isinstance(error, OSError):
            raise
        raise SignatureError(
            f"{path}: expected an Ed25519 {kind} key in PEM, got something else; {_MADE_BY[kind]}"
        ) from error
    if not isinstance(key, wanted):
        raise SignatureError(
            f"{path}: expected an Ed25519 {kind} key, got {type(key).__name__.strip('_')}; {_MADE_BY[kind]}"
        )
    return key


_MADE_BY = {
    "private": "make one with `openssl genpkey -algorithm ed25519 -out key.pem`",
    "public": "write it with `openssl pkey -in key.pem -pubout -out public.pem`",
}


def _loader(kind: str) -> tuple[type, Callable[[bytes], object]]:
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as error:
        raise UnavailableError(f"signatures need the package cryptography: {INSTALL}") from error
    if kind == "public":
        return ed25519.Ed25519PublicKey, serialization.load_pem_public_key
    return ed25519.Ed25519PrivateKey, lambda data: serialization.load_pem_private_key(data, None)


def _fingerprint(key: Ed25519PublicKey) -> str:
    """The start of the SHA-256 of a public key's DER form, by which people compare keys."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return f"SHA256:{hashlib.sha256(der).hexdigest()[:16]}"
