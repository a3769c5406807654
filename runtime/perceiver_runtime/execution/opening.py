"""Open a session on a bundle."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from perceiver_runtime.backends.backend import Priority
from perceiver_runtime.bundle import Bundle, load_bundle
from perceiver_runtime.execution.choice import choose
from perceiver_runtime.execution.session import Session
from perceiver_runtime.format.signature import PublicKeys
from perceiver_runtime.measure.parity import require_parity


def open_session(
    bundle: str | Path | Bundle,
    backend: str = "auto",
    threads: int | None = None,
    *,
    copy_weights: bool = False,
    check_finite: bool = True,
    check_outputs: bool = False,
    self_test: bool = False,
    callers: int | None = None,
    priority: Priority = "normal",
    device_memory: int | None = None,
    require_signature: PublicKeys | None = None,
) -> Session:
    """Load a bundle and open a session on it.

    Args:
        bundle: Directory of a bundle, or a loaded bundle.
        backend: `auto`, or a name of `perceiver_runtime.backends.BACKENDS`. See `perceiver_runtime.execution.choice`.
        threads: Largest number of CPU threads; None chooses by the size of the bundle.
        copy_weights: Read large weights into memory instead of mapping them. A mapped file that is changed in place
            makes the session refuse to run.
        check_finite: Refuse floating-point feeds with NaN, infinity or numbers too large to be squared. Without the
            check they are run, and quantisation can turn them into plausible numbers.
        check_outputs: Raise CheckError for results of `run`, `encode`, `decode` and `run_component` with NaN or
            infinity: a number inside a component left the range of its type.
        self_test: Run the golden samples and compare as `verify` does, before the session is returned. It finds what
            changed after the files were hashed: bits in memory, a defective device, an engine that computes wrongly.
        callers: Largest number of runs at the same time, and of open callers. Each needs buffers, on a GPU also scratch
            memory; weights are shared. None takes the backend's: 4 streams on TensorRT, one on `onnxruntime-cuda`, on a
            processor as many as the cores have room for.
        priority: Of the streams on TensorRT: kernels of `high` go before those of `normal`, in all of the process.
        device_memory: Largest number of bytes on a GPU for buffers and scratch memory of all callers; None: what is
            free. Engines, what ONNX Runtime allocates itself, and CUDA are not counted.
        require_signature: File with an Ed25519 public key in PEM, or several; one must have signed the bundle.

    Returns:
        The session. `backend`, `threads` and `reason` tell what was chosen and why.

    Raises:
        BundleError: The bundle is damaged.
        SignatureError: None of the keys of `require_signature` has signed it, or one can't be used.
        UsageError: The backend is unknown, or an option out of range or not for this backend.
        UnavailableError: The backend is not available on this machine.
        CheckError: The self-test failed.
    """
    owner = not isinstance(bundle, Bundle)
    loaded = bundle if isinstance(bundle, Bundle) else load_bundle(bundle, require_signature=require_signature)
    if not owner and require_signature is not None:
        loaded.check_signature(require_signature)
    if copy_weights:
        loaded = dataclasses.replace(loaded, copy_weights=True, mapped=[])
    chosen = choose(loaded, backend, threads)
    session = Session(
        loaded,
        chosen.backend,
        chosen.threads,
        reason=chosen.reason,
        owner=owner,
        check_finite=check_finite and not self_test,
        check_outputs=check_outputs,
        callers=callers,
        priority=priority,
        device_memory=device_memory,
    )
    if self_test:
        try:
            require_parity(session)
        except BaseException:
            session.close()
            raise
        session.check_finite = check_finite
    return session
