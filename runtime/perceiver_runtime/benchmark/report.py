"""What a measurement of latency gives: frozen data, and its JSON form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from perceiver_runtime.benchmark.load import OtherLoad
from perceiver_runtime.benchmark.statistics import Distribution
from perceiver_runtime.conditions import Conditions

Graphs = Literal["on", "off", "partly", "not applicable"]


@dataclass(frozen=True)
class NotMeasured:
    """Stands for a figure that was not measured, with the reason."""

    reason: str
    status: Literal["not measured"] = "not measured"


@dataclass(frozen=True)
class Memory:
    """Memory in bytes; None where the system does not tell.

    Attributes:
        peak_rss: Largest resident memory of this process (VmHWM), weights that are mapped from files included.
        covers: What that peak is of: `measurement` (it was reset before), or `process` (the system refused to).
        device: Used memory of the GPU after the runs, that of other programs included; on a Jetson, of the board.
    """

    peak_rss: int | None
    covers: Literal["measurement", "process"]
    device: int | None


@dataclass(frozen=True)
class Energy:
    """Energy of a series of runs, as a counter or a rail of the device gave it. An inference is one row of a run.

    Attributes:
        joules_per_inference: Gross: all that the device took during the runs.
        net_joules_per_inference: Less what it takes when idle.
        mean_watts: Mean power during the runs.
        idle_watts: Mean power before them, with the session open.
        peak_watts: Largest sampled power; None if there is no sample of it.
        seconds: Duration of the runs.
        inferences: Rows in them.
        source: What was read, and the device.
        peak_temperature: Highest temperature in degrees Celsius during the runs.
        lowest_clock: Lowest clock in hertz during the runs, of the GPU if there is one.
        throttled: Reasons that the device gave for throttling during the runs.
        unified_memory: On a Jetson, the largest used memory of the board in bytes.
    """

    joules_per_inference: float
    net_joules_per_inference: float
    mean_watts: float
    idle_watts: float
    peak_watts: float | None
    seconds: float
    inferences: int
    source: str
    peak_temperature: float | None = None
    lowest_clock: float | None = None
    throttled: tuple[str, ...] = ()
    unified_memory: int | None = None


@dataclass(frozen=True)
class CallersReport:
    """Several callers of one session, each in a closed loop: it calls again as soon as it has its answer.

    Attributes:
        callers: Number of threads that call.
        runs: Runs of all of them.
        seconds: Duration.
        throughput: Rows per second of all of them.
        latency: Milliseconds of a call, its wait for a turn included.
    """

    callers: int
    runs: int
    seconds: float
    throughput: float
    latency: Distribution


@dataclass(frozen=True)
class OpenLoopReport:
    """Requests that arrive at a fixed rate, whether or not earlier ones are answered.

    Attributes:
        rate: Scheduled requests per second.
        achieved: Answers per second, from the first one to the last.
        sustained: Whether all requests were answered and `achieved` is at least 95% of `rate`; otherwise the queue
            grows for as long as it runs.
        callers: Number of threads that answer.
        requests: Scheduled requests.
        unanswered: Requests that were given up, because the queue did not drain in time. Percentiles count them with
            the time that they had waited, so they are lower bounds.
        latency: Milliseconds from the scheduled arrival to the answer; a late start counts (no coordinated omission).
        waiting: Milliseconds from the scheduled arrival to the start.
        queue_depth: Requests that had arrived and not started, at the start of each request.
    """

    rate: float
    achieved: float
    sustained: bool
    callers: int
    requests: int
    unanswered: int
    latency: Distribution
    waiting: Distribution
    queue_depth: Distribution


@dataclass(frozen=True)
class LatencyReport:
    """Latency of `Session.run` in milliseconds, from arrays in host memory to arrays in host memory.

    Attributes:
        total: Complete runs.
        components: All calls of each component in a run, without transfers, from a second series with timers inside.
        overhead: The rest of those runs: checks, copies, calls.
        batch: Rows per run.
        warmup: Runs before the measured ones.
        iterations: Measured runs.
        backend: Name of the backend.
        threads: Number of CPU threads, or None.
        machine: Processor or board, cores, and operating system.
        versions: Versions of Python, NumPy and the backend's libraries.
        others: Load of other programs during the measurement; None if not known.
        reason: Why the backend was chosen.
        conditions: What was measured, and where.
        throughput: Rows per second of the series of complete runs, one caller.
        stable: Whether the warm-up ended because times were stable; None for a fixed number of runs.
        memory: Peak memory.
        energy: Energy per inference, if it was asked for.
        transfers: Whether `total` has the copies between host and device, as trtexec's "Latency" does.
        cuda_graphs: Whether engines were launched as CUDA graphs (trtexec's --useCudaGraph); `partly` if some could not
            be captured.
        callers: One report for each number of concurrent callers that was asked for.
        open_loop: Requests at a fixed rate, if asked for.
    """

    total: Distribution
    components: Mapping[str, Distribution]
    overhead: Distribution
    batch: int
    warmup: int
    iterations: int
    backend: str
    threads: int | None
    machine: str
    versions: Mapping[str, str]
    others: OtherLoad | None
    reason: str
    conditions: Conditions
    throughput: float
    stable: bool | None
    memory: Memory
    energy: Energy | NotMeasured
    transfers: Literal["included", "excluded"] = "included"
    cuda_graphs: Graphs = "not applicable"
    callers: tuple[CallersReport, ...] = ()
    open_loop: OpenLoopReport | None = None
