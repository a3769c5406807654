"""Sessions: run a bundle, with the same methods on every backend."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from types import TracebackType
from typing import Any

from perceiver_runtime.backends import check_precision
from perceiver_runtime.backends.backend import Backend, Priority
from perceiver_runtime.bundle import Bundle
from perceiver_runtime.errors import UsageError
from perceiver_runtime.execution.activity import Observe, ObservedThreads, Record, recording
from perceiver_runtime.execution.caller import Caller
from perceiver_runtime.execution.choice import RunsOn
from perceiver_runtime.execution.feeds import check_feeds, check_results, check_values
from perceiver_runtime.execution.generate import GREEDY, BoundStep, Generated, Sampling, generate
from perceiver_runtime.execution.lanes import Lanes
from perceiver_runtime.execution.subpipeline import Subpipeline, Subpipelines, for_component, for_generation
from perceiver_runtime.format.files import refuse_pickling
from perceiver_runtime.manifest import Manifest
from perceiver_runtime.tensors import Array, TensorSpec, is_whole

Feeds = Mapping[str, Array]


class Session:
    """A bundle that is ready to run; a context manager. Can be used from several threads.

    Feeds are checked and never cast. Results are new arrays that belong to the caller.

    Attributes:
        bundle: The loaded bundle.
        backend: Name of the backend.
        versions: Versions of the libraries behind it.
        threads: Number of CPU threads, or None.
        reason: Why the backend was chosen.
        device: Device whose memory the graphs read and write.
        concurrency: Number of runs that execute at the same time; others wait.
        check_finite: Whether floating-point feeds are checked for NaN, infinity and numbers too large.
        check_outputs: Whether results are checked for NaN and infinity.
    """

    __reduce__ = refuse_pickling

    def __init__(
        self,
        bundle: Bundle,
        backend: Backend,
        threads: int | None = None,
        *,
        reason: str = "",
        owner: bool = False,
        check_finite: bool = True,
        check_outputs: bool = False,
        callers: int | None = None,
        priority: Priority = "normal",
        device_memory: int | None = None,
    ) -> None:
        self.bundle = bundle
        self.check_finite = check_finite
        self.check_outputs = check_outputs
        self._owner = owner
        self.backend = backend.name
        self.versions = backend.versions
        self.threads = threads
        self.reason = reason
        self.device = backend.device
        for entry in bundle.manifest.components:
            check_precision(backend.name, entry.precision)
        self._executables = {entry.name: backend.load(bundle, entry) for entry in bundle.manifest.components}
        bundle.check_unchanged()
        self._observed = ObservedThreads()
        self._lanes = Lanes(backend, self._executables, callers, priority, device_memory)
        self.concurrency = self._lanes.limit
        self._subpipelines = Subpipelines(bundle.manifest)
        self._for_generation = lru_cache(16)(lambda generation: for_generation(bundle.manifest, generation))
        self._for_component = {c.name: for_component(c) for c in bundle.manifest.components}

    @property
    def runs_on(self) -> RunsOn:
        """Backend, threads, and why these were taken."""
        return RunsOn(self.backend, self.threads, self.reason)

    @property
    def manifest(self) -> Manifest:
        """Description of the bundle."""
        return self.bundle.manifest

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Inputs of `run`."""
        return self.manifest.pipeline.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """Outputs of `run`."""
        return self.manifest.pipeline.outputs

    def run(
        self,
        feeds: Feeds,
        outputs: Iterable[str] | None = None,
        *,
        record: Record | None = None,
        observe: Observe | None = None,
    ) -> dict[str, Array]:
        """Run the pipeline.

        Args:
            feeds: Inputs by name. Inputs with a default may be omitted.
            outputs: Names of the outputs to compute; None computes all. Only the steps that they depend on run.
            record: Called as `record(component, seconds)` after each component call.
            observe: Called as `observe(activity, start, end)` after each component call, copy and wait for a turn.

        Returns:
            Outputs by name.

        Raises:
            FeedError: A name, type, rank, size or value does not match the inputs.
            UsageError: An output is unknown, or the session is closed.
            BundleError: A graph failed, or a mapped file was changed.
        """
        chosen = None if outputs is None else tuple(outputs)
        return self._execute(self._subpipelines.run(chosen), feeds, self._observed.guarded(recording(record, observe)))

    def encode(self, feeds: Feeds) -> dict[str, Array]:
        """Run the encode stage, once for any number of `decode` calls.

        Args:
            feeds: Inputs by name.

        Returns:
            Encoded values by name: latents, or keys and values computed from them.

        Raises:
            FeedError: A name, type, rank, size or value does not match the inputs.
        """
        return self._execute(self._subpipelines.encode(), feeds, None)

    def decode(
        self, encoded: Feeds, feeds: Feeds | None = None, outputs: Iterable[str] | None = None
    ) -> dict[str, Array]:
        """Run the decode stage.

        Args:
            encoded: Results of `encode`.
            feeds: Further inputs that decoding reads, such as queries. An omitted input with a default is filled with
                it, whatever `encode` was given.
            outputs: Names of the outputs to compute; None computes all.

        Returns:
            Outputs by name.

        Raises:
            FeedError: A value is given twice, or does not match the inputs.
            UsageError: An output is unknown.
        """
        subpipeline = self._subpipelines.decode(None if outputs is None else tuple(outputs))
        return self._execute(subpipeline, self._subpipelines.joined(encoded, feeds), None)

    def generate(
        self, feeds: Feeds, name: str | None = None, *, sampling: Sampling = GREEDY, length: int | None = None
    ) -> Generated:
        """Generate sequences of ids, until each has ended.

        Args:
            feeds: Inputs by name.
            name: Name of one of the pipeline's generations; None takes the only one.
            sampling: How ids are chosen; the default takes the most likely one.
            length: Largest number of ids, at most the limit of the bundle (None).

        Returns:
            Ids, lengths and log-probabilities.

        Raises:
            FeedError: A name, type, rank, size or value does not match the inputs.
            UsageError: The generation is unknown, or the length out of range.
            CheckError: Scores are not finite.
        """
        generation = self.manifest.pipeline.generation(name)
        step = self.manifest.pipeline.step(generation.component)
        allowed = generation.length if length is None else length
        if not is_whole(allowed) or not 1 <= allowed <= generation.length:
            raise UsageError(f"length {length}; {generation.name} takes 1 to {generation.length} ids")
        executables = self._executables
        values = self._execute(self._for_generation(generation), feeds, None)
        output = next(graph for graph, value in step.outputs.items() if value == generation.scores)
        batch = len(next(iter(values.values())))
        with self._lanes.lane() as lane:
            if (loop := lane.loops.pop((generation.name, batch), None)) is not None:
                loop.begin(values)
            else:
                loop = BoundStep(lane.device, executables[step.component], step, generation.token, values)
            made = generate(loop, generation, output, batch, sampling, allowed)
            lane.keep((generation.name, batch), loop)  # not after an error, which may have come from its state
        return made

    def run_component(self, name: str, feeds: Feeds) -> dict[str, Array]:
        """Call one component once.

        Args:
            name: Name of the component.
            feeds: Graph inputs by name, of any sizes.

        Returns:
            All graph outputs by name.

        Raises:
            FeedError: A name, type, rank or size does not match the graph inputs.
            UsageError: The component is unknown.
        """
        if name not in self._for_component:
            raise UsageError(f"component {name!r}; this bundle holds {', '.join(self._for_component)}")
        return self._execute(self._for_component[name], feeds, None)

    def caller(self, stream: Any = None, *, priority: Priority | None = None, check_values: bool = False) -> Caller:
        """Open a caller: arrays of PyTorch, CuPy and others in and out, on the GPU without a copy through the host.

        Args:
            stream: The caller's CUDA stream, in whose order arrays are read and written: an integer, or an object with
                `cuda_stream` (PyTorch) or `__cuda_stream__`. None: each call waits until its results are complete.
            priority: Priority of the caller's stream; None takes the session's.
            check_values: Check values on the GPU as those on the host: they are copied there, and the call waits.

        Returns:
            The caller, with `run`, `encode` and `decode`.

        Raises:
            UsageError: Too many callers are open, the session is closed, or an option is not for this backend.
        """
        self._lanes.check_open()
        return Caller(self.bundle, self._lanes, self._subpipelines, stream, priority, check_values, self.check_finite)

    def close(self) -> None:
        """Release graphs and buffers, and the bundle if the session loaded it."""
        self._lanes.close()
        self._executables = {}  # runs that have begun keep theirs
        if self._owner:
            self.bundle.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *error: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def _execute(self, subpipeline: Subpipeline, feeds: Feeds, observe: Observe | None) -> dict[str, Array]:
        self._lanes.check_open()
        self._observed.check()
        self.bundle.check_unchanged()
        sizes = check_feeds(subpipeline, feeds)
        check_values(subpipeline, feeds, self.check_finite)
        results = self._lanes.run(subpipeline, feeds, sizes, observe)
        if self.check_outputs:
            check_results(subpipeline.title, results)
        return results
