"""Open, run, verify and time a bundle. NumPy and one backend; never torch."""

import perceiver_runtime.launch  # noqa: F401  (before anything else can be imported)

# isort: split

from perceiver_runtime.backends.opt_out import opt_out
from perceiver_runtime.benchmark.report import LatencyReport
from perceiver_runtime.bundle import Bundle, load_bundle
from perceiver_runtime.errors import (
    BundleError,
    CheckError,
    CheckpointError,
    FeedError,
    PerceiverError,
    SignatureError,
    UnavailableError,
    UsageError,
)
from perceiver_runtime.execution.caller import Caller
from perceiver_runtime.execution.generate import Generated, Sampling
from perceiver_runtime.execution.opening import open_session
from perceiver_runtime.execution.session import Session
from perceiver_runtime.measure.verify import VerifyReport, verify
from perceiver_runtime.release import __version__ as __version__

# isort: split

from perceiver_runtime.benchmark.latency import measure  # last: a folder has that name too

opt_out()

__all__ = [
    "Bundle",
    "BundleError",
    "Caller",
    "CheckError",
    "CheckpointError",
    "FeedError",
    "Generated",
    "LatencyReport",
    "PerceiverError",
    "Sampling",
    "Session",
    "SignatureError",
    "UnavailableError",
    "UsageError",
    "VerifyReport",
    "load_bundle",
    "measure",
    "open_session",
    "verify",
]
