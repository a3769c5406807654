"""Every error a user can meet, each with the exit code the command line answers it with.

| Exit code | Meaning |
|---|---|
| 0 | everything held |
| 1 | a check failed: parity, accuracy, precision |
| 2 | wrong usage |
| 3 | a bad input: file, bundle, checkpoint, or the arrays given to a session |
| 4 | something needed is not on this machine: backend, device, package |
"""

from __future__ import annotations


class PerceiverError(Exception):
    """Base of all errors raised on purpose. The message says what was expected, what came, and the remedy."""

    exit_code = 1


class CheckError(PerceiverError):
    """A measured number broke its bound: parity, accuracy or precision."""

    exit_code = 1


class UsageError(PerceiverError):
    """The request makes no sense as asked: unknown name, contradicting options."""

    exit_code = 2


class BundleError(PerceiverError):
    """A bundle is damaged, incomplete, foreign, or of an unknown schema."""

    exit_code = 3


class CheckpointError(PerceiverError):
    """A checkpoint can't be read, or its tensors do not fit the model."""

    exit_code = 3


class DatasetError(PerceiverError):
    """Labelled data can't be read, or arrays to be scored do not fit each other."""

    exit_code = 3


class FeedError(PerceiverError):
    """Arrays given to a session do not match its inputs in name, rank, size or dtype."""

    exit_code = 3


class BuildError(PerceiverError):
    """TensorRT refused to make an engine of a bundle's graph."""

    exit_code = 3


class UnavailableError(PerceiverError):
    """A backend, device or package that the request needs is not on this machine."""

    exit_code = 4
