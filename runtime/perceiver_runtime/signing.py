"""Sign a bundle; `load_bundle` and `open_session` check signatures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from perceiver_runtime.bundle import load_bundle
from perceiver_runtime.format.outputs import replacing
from perceiver_runtime.format.signature import SIGNATURE_NAME, sign


@dataclass(frozen=True)
class Signed:
    """What was signed, and by whom.

    Attributes:
        bundle: Path of the bundle.
        digest: Its digest.
        key: Fingerprint of the public key: the first 16 digits of the SHA-256 of its DER form.
    """

    bundle: str
    digest: str
    key: str

    def __str__(self) -> str:
        return f"{self.bundle}: signed by {self.key}\ndigest {self.digest}"


def sign_bundle(path: str | Path, key: str | Path) -> Signed:
    """Check a bundle whole and put its signature into it, in place of an earlier one.

    Args:
        path: Directory of the bundle.
        key: File with an Ed25519 private key, PKCS#8 in PEM, without a password.

    Returns:
        What was signed.

    Raises:
        BundleError: The bundle is damaged.
        SignatureError: The key can't be used.
        UnavailableError: `cryptography` is not installed.
    """
    with load_bundle(path) as bundle:
        digest = bundle.manifest.digest
        signature, fingerprint = sign(digest, Path(key))
    with replacing(Path(path) / SIGNATURE_NAME, follow=False) as partial:
        partial.write_bytes(signature)
    return Signed(str(path), digest, fingerprint)
