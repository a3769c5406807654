"""Choice of the backend and the number of threads that run a bundle.

`auto` takes the first of these that is possible on this machine:

1. the bundle's TensorRT engines, if they were built for this machine's TensorRT and GPU;
2. the setting that `export --tune` measured as fastest, if it is for this bundle, this kind of machine and these
   versions;
3. ONNX Runtime on the GPU, for bundles that were exported for it (target `cuda`);
4. ONNX Runtime on the processor.

Engines that do not fit, and a GPU that is not there, are no error: `Session.reason` and a log warning say so. TensorRT
is not imported if there are no engines. A backend requested by name is used or refused, never replaced.

The default number of threads is one for bundles whose largest component takes less than `ONE_THREAD_FLOPS`, and all
physical cores for others. For so little work, waking a second thread costs more than it saves, and runs of several
callers can overlap instead. Recurrent layers do not count: they run position by position.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass

from perceiver_runtime.backends import AUTO, PROCESSOR_BACKENDS, open_backend
from perceiver_runtime.backends.backend import Backend
from perceiver_runtime.bundle import Bundle
from perceiver_runtime.errors import BundleError, UnavailableError, UsageError
from perceiver_runtime.format.tuning import read_tuning, tuning_path
from perceiver_runtime.machine import physical_cores
from perceiver_runtime.manifest import Manifest

LOGGER = logging.getLogger(__name__)
ONE_THREAD_FLOPS = 8_000_000
"""FLOPs of the largest component at the profile's OPT; measured by `benchmarks/threads.py --limit`."""
RUNTIMES = {"tensorrt": ("tensorrt", "tensorrt-lean", "tensorrt-dispatch"), "tensorrt_rtx": ("tensorrt-rtx",)}
"""Backends that run the engines of a TensorRT module, the first for all engines, the others for compatible ones."""
CUDA_TARGET, CUDA = "cuda", "onnxruntime-cuda"
WITHOUT_ENGINES = ("cpu", CUDA_TARGET)
"""Targets that run ONNX as it is."""


@dataclass(frozen=True)
class RunsOn:
    """What a session runs on, and why. `threads` is None for backends without CPU threads."""

    backend: str
    threads: int | None
    reason: str

    def __str__(self) -> str:
        threads = "" if self.threads is None else f", {self.threads} thread{'s' if self.threads > 1 else ''}"
        return f"{self.backend}{threads}{f' ({self.reason})' if self.reason else ''}"


@dataclass(frozen=True)
class Choice:
    """An open backend, its number of CPU threads (None: not on a processor), and why it was chosen."""

    backend: Backend
    threads: int | None
    reason: str


def choose(bundle: Bundle, name: str = "auto", threads: int | None = None) -> Choice:
    """Open a backend for a bundle.

    Args:
        bundle: A loaded bundle.
        name: Name of a backend, or `auto`.
        threads: Number of CPU threads; None takes the default.

    Returns:
        The open backend and why it was chosen. A damaged tuning is logged as a warning and not used.

    Raises:
        UsageError: The name is unknown, or the number of threads out of range.
        UnavailableError: The requested backend is not available on this machine.
        BundleError: An engine is damaged.
    """
    if name != "auto":
        given = _threads(bundle.manifest, name, threads)
        return Choice(open_backend(name, given), given, "asked for by name")
    engines = _engines(bundle, threads)
    if isinstance(engines, Choice):
        LOGGER.info("auto: %s: %s", engines.backend.name, engines.reason)
        return engines
    tuned = _tuned(bundle, threads)
    if isinstance(tuned, Choice):
        chosen = Choice(tuned.backend, tuned.threads, f"{tuned.reason}; {engines}")
    elif isinstance(on_gpu := _on_gpu(bundle, threads), Choice):
        chosen = Choice(on_gpu.backend, None, f"{on_gpu.reason}; {engines}; {tuned}")
    else:
        given = _threads(bundle.manifest, AUTO, threads)
        chosen = Choice(open_backend(AUTO, given), given, "; ".join(filter(None, (engines, tuned, on_gpu))))
    for_gpu = bundle.manifest.target == CUDA_TARGET and not isinstance(tuned, Choice)
    wanted = has_engines(bundle) or bundle.manifest.target not in WITHOUT_ENGINES or for_gpu
    replaced = wanted and chosen.backend.name in PROCESSOR_BACKENDS
    LOGGER.log(logging.WARNING if replaced else logging.INFO, "auto: %s: %s", chosen.backend.name, chosen.reason)
    return chosen


def expected(bundle: Bundle) -> RunsOn:
    """What `auto` takes on this machine, without loading graphs; backend `none` if nothing runs the bundle."""
    try:
        chosen = choose(bundle)
    except UnavailableError as error:
        return RunsOn("none", None, str(error))
    return RunsOn(chosen.backend.name, chosen.threads, chosen.reason)


def default_threads(manifest: Manifest) -> int:
    """Default number of CPU threads for one run of a bundle."""
    largest = max((component.flops - component.recurrent_flops for component in manifest.components), default=0)
    return 1 if largest < ONE_THREAD_FLOPS else physical_cores()


def _threads(manifest: Manifest, backend: str, threads: int | None) -> int | None:
    return default_threads(manifest) if threads is None and backend in PROCESSOR_BACKENDS else threads


def has_engines(bundle: Bundle) -> bool:
    """Whether a bundle has engines, for whatever target."""
    return any(path.startswith("engines/") for path in bundle.manifest.files)


def _engines(bundle: Bundle, threads: int | None) -> Choice | str:
    """The backend that runs the bundle's engines here, or why none does."""
    if not has_engines(bundle):
        target = bundle.manifest.target
        built = f" (build those for {target}: perceiver-run build)" if target not in WITHOUT_ENGINES else ""
        return f"no engines in the bundle{built}"
    opened = [_open_engines(bundle, name, threads) for name in _runtimes(bundle)]
    for found in opened:
        if isinstance(found, Choice):
            return found
    return f"engines not used: {'; '.join(map(str, dict.fromkeys(opened))) or 'their sidecars are missing'}"


def _open_engines(bundle: Bundle, name: str, threads: int | None) -> Choice | str:
    from perceiver_runtime.tensorrt.backend import TensorRT  # the package alone: TensorRT is imported by `open_backend`

    try:
        backend = open_backend(name, threads)
        assert isinstance(backend, TensorRT)  # for mypy
        return Choice(backend, None, f"engines for {', '.join(backend.check(bundle))} fit {backend.machine}")
    except UnavailableError as error:
        return str(error)


def _on_gpu(bundle: Bundle, threads: int | None) -> Choice | str:
    """ONNX Runtime's CUDA provider for a bundle of its target, or why not; nothing for other targets."""
    if bundle.manifest.target != CUDA_TARGET:
        return ""
    try:
        return Choice(open_backend(CUDA, threads), None, f"the bundle is for target {CUDA_TARGET}")
    except UnavailableError as error:
        return str(error)


def _runtimes(bundle: Bundle) -> Iterator[str]:
    """Backends that may run the bundle's engines, according to their sidecars."""
    from perceiver_runtime.tensorrt.backend import sidecars

    found = sidecars(bundle)
    for module, backends in RUNTIMES.items():
        own = [sidecar for sidecar in found if sidecar.module == module]
        if own:
            yield from backends if all(sidecar.version_compatible for sidecar in own) else backends[:1]


def _tuned(bundle: Bundle, threads: int | None) -> Choice | str:
    """The backend of the bundle's tuning, if it is valid here for this number of threads, or why it is not."""
    path = bundle.path
    if not path.is_dir() or not tuning_path(path).is_file():
        return "no tuning"
    try:
        tuning = read_tuning(path)
    except BundleError as error:
        LOGGER.warning("auto: tuning not used: %s", error)
        return f"tuning not used: {error}"
    if tuning is None:
        return "tuning not used: it is of another bundle or another kind of machine"
    winner = tuning.winner
    if threads not in (None, winner.threads) and winner.backend in PROCESSOR_BACKENDS:
        return f"tuning not used: it is for {winner.threads} threads, {threads} were asked for"
    try:
        opened = open_backend(winner.backend, winner.threads)
    except (UnavailableError, UsageError) as error:  # measured where there were more cores, or by a newer version
        return f"tuning not used: {error}"
    if opened.versions != winner.versions:
        return f"tuning not used: measured with {dict(winner.versions)}, here {dict(opened.versions)}"
    own = winner.threads if winner.backend in PROCESSOR_BACKENDS else None
    return Choice(opened, own, f"fastest of {len(tuning.measured)} settings measured on this machine")
