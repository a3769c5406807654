"""Signatures: what is required is checked before any file of the bundle is used, and nothing else passes for it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_bundles
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from perceiver_runtime import BundleError, SignatureError, UnavailableError, UsageError, load_bundle, open_session
from perceiver_runtime.bundle import write_manifest
from perceiver_runtime.cli.main import main
from perceiver_runtime.format.signature import SIGNATURE_NAME, message
from perceiver_runtime.signing import sign_bundle

PEM = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def pair(folder: Path, name: str, key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey) -> tuple[Path, Path]:
    """Files with a private key and its public key."""
    private, public = folder / f"{name}.pem", folder / f"{name}.public.pem"
    private.write_bytes(key.private_bytes(*PEM))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return private, public


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return pair(tmp_path_factory.mktemp("keys"), "mine", ed25519.Ed25519PrivateKey.generate())


@pytest.fixture(scope="session")
def other(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return pair(tmp_path_factory.mktemp("keys"), "other", ed25519.Ed25519PrivateKey.generate())


@pytest.fixture
def signed(copy: Path, keys: tuple[Path, Path]) -> Path:
    sign_bundle(copy, keys[0])
    return copy


def test_a_signed_bundle(signed: Path, keys: tuple[Path, Path], other: tuple[Path, Path]) -> None:
    with open_session(signed, threads=1, require_signature=keys[1]) as session:
        session.run(tiny_bundles.feeds())
    with load_bundle(signed, require_signature=[str(other[1]), keys[1]]) as bundle:
        open_session(bundle, threads=1, require_signature=keys[1]).close()
        with pytest.raises(SignatureError, match="another key"):
            open_session(bundle, threads=1, require_signature=other[1])
    load_bundle(signed).close()
    with pytest.raises(UsageError, match="one public key or more"):
        load_bundle(signed, require_signature=[])


def test_the_wrong_key(signed: Path, other: tuple[Path, Path]) -> None:
    with pytest.raises(SignatureError, match=r"other\.public\.pem \(SHA256:.*got one by another key"):
        load_bundle(signed, require_signature=other[1])


def test_no_signature(copy: Path, keys: tuple[Path, Path]) -> None:
    with pytest.raises(SignatureError, match=r"without signature\.ed25519; sign it"):
        load_bundle(copy, require_signature=keys[1])


def test_engines_of_an_unsigned_bundle_are_not_taken_over(
    signed: Path, bundle: Path, keys: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["build", str(signed), "--require-signature", str(keys[1]), "--reuse", str(bundle)]
    assert main(command) == 3
    assert f"{bundle}: expected a signature by" in capsys.readouterr().err


def test_a_bundle_that_was_changed_and_sealed_again(signed: Path, keys: tuple[Path, Path]) -> None:
    with load_bundle(signed) as bundle:
        manifest = bundle.manifest
    (signed / "onnx/added.plan").write_bytes(b"")
    with pytest.raises(BundleError, match="not listed"):
        load_bundle(signed, require_signature=keys[1])
    (signed / "onnx/added.plan").unlink()
    tiny_bundles.change(signed, lambda m: m.update(labels=["a", "b"]))
    with pytest.raises(SignatureError, match="changed after it was signed"):
        load_bundle(signed, require_signature=keys[1])
    write_manifest(signed, manifest)
    load_bundle(signed, require_signature=keys[1]).close()


@pytest.mark.parametrize("content", [b"", b"x", b"\0" * 63, b"\0" * 64, b"\xff" * 64, b"\0" * 65, b"-" * 10_000])
def test_garbage(signed: Path, keys: tuple[Path, Path], content: bytes) -> None:
    (signed / SIGNATURE_NAME).write_bytes(content)
    with pytest.raises(SignatureError):
        load_bundle(signed, require_signature=keys[1])


def test_every_flipped_bit_of_a_signature(signed: Path, keys: tuple[Path, Path]) -> None:
    path = signed / SIGNATURE_NAME
    whole = path.read_bytes()
    bundle = load_bundle(signed)
    for bit in range(8 * len(whole)):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        object.__setattr__(bundle, "signature", bytes(flipped))
        with pytest.raises(SignatureError):
            bundle.check_signature(keys[1])


def test_a_signature_that_is_no_file(signed: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    (signed / SIGNATURE_NAME).rename(tmp_path / "elsewhere")
    (signed / SIGNATURE_NAME).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BundleError, match="link"):
        load_bundle(signed, require_signature=keys[1])


def test_keys_that_do_not_serve(copy: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    private, public = pair(tmp_path, "curve", ec.generate_private_key(ec.SECP256R1()))
    (tmp_path / "text.pem").write_text("no key")
    secret = ed25519.Ed25519PrivateKey.generate().private_bytes(*PEM[:2], BestAvailableEncryption(b"password"))
    (tmp_path / "secret.pem").write_bytes(secret)
    for key, why in ((private, "got EC"), (keys[1], "something else"), (tmp_path / "secret.pem", "password")):
        with pytest.raises(SignatureError, match=why):
            sign_bundle(copy, key)
    for key, why in ((public, "got EC"), (keys[0], "something else"), (tmp_path / "text.pem", "something else")):
        with pytest.raises(SignatureError, match=why):
            load_bundle(copy, require_signature=key)
    assert not (copy / SIGNATURE_NAME).exists()


def test_commands(
    copy: Path, keys: tuple[Path, Path], other: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    required = ["--require-signature", str(keys[1])]
    for name in ("inspect", "verify", "bench", "build", "layers"):
        more = {"bench": ["--iterations", "1"], "layers": ["-o", str(copy.with_name("out"))]}.get(name, [])
        assert main([name, str(copy), *required, *more, "--json"]) == 3, name
        assert json.loads(capsys.readouterr().out)["error"]["type"] == "SignatureError"
    assert main(["sign", str(copy), "--key", str(keys[0])]) == 0
    assert load_bundle(copy).manifest.digest in capsys.readouterr().out
    assert main(["verify", str(copy), "--require-signature", str(other[1]), *required]) == 0
    assert main(["sign", str(copy), "--key", str(other[0]), "--json"]) == 0
    assert main(["verify", str(copy), *required]) == 3
    assert main(["verify", str(copy), "--require-signature", str(copy / "none")]) == 2


def test_keys_and_signatures_of_openssl(copy: Path, tmp_path: Path) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs openssl")

    def run(*arguments: str | Path) -> None:
        subprocess.run([openssl, *map(str, arguments)], check=True, capture_output=True, timeout=60)

    key, public, text = tmp_path / "key.pem", tmp_path / "public.pem", tmp_path / "message"
    run("genpkey", "-algorithm", "ed25519", "-out", key)
    run("pkey", "-in", key, "-pubout", "-out", public)
    text.write_bytes(message(sign_bundle(copy, key).digest))
    load_bundle(copy, require_signature=public).close()
    place = copy / SIGNATURE_NAME
    run("pkeyutl", "-verify", "-pubin", "-inkey", public, "-rawin", "-in", text, "-sigfile", place)
    place.unlink()
    run("pkeyutl", "-sign", "-inkey", key, "-rawin", "-in", text, "-out", place)
    load_bundle(copy, require_signature=public).close()


def test_without_the_package(signed: Path, keys: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("cryptography")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "cryptography", None)
    load_bundle(signed).close()
    with pytest.raises(UnavailableError, match=r"perceiver-runtime\[signing\]"):
        load_bundle(signed, require_signature=keys[1])
