"""Errors that a user can meet, each with the exit code of the command line.

| Exit code | Meaning |
|---|---|
| 0 | success; all checks passed |
| 1 | a check failed: parity, accuracy, precision |
| 2 | wrong usage |
| 3 | bad input: file, bundle, signature, checkpoint, or the arrays given to a session |
| 4 | missing on this machine: backend, device, package, memory, disk space, permission |
| 70 | a defect of the program, reported with its traceback |
| 130 | interrupted (Ctrl-C) |
| 141 | the reader of the output closed it, as `head` does |

Errors of the operating system have exit codes too: 2 for a path that can't be used as requested (ENOENT, ENOTDIR,
EISDIR, EEXIST, ENOTEMPTY, ELOOP, ENAMETOOLONG), 4 for refused resources (permission, space, limits, memory).
"""

from __future__ import annotations

import errno
import re

INTERNAL_ERROR = 70
INTERRUPTED = 130
CLOSED_OUTPUT = 141

INSTALL_ONNXRUNTIME = "pip install 'perceiver-runtime[cpu]', or 'perceiver-runtime[gpu]' for an NVIDIA GPU"
"""Works wherever this package is installed, from a checkout or from wheels: pip adds what the extra names."""


class PerceiverError(Exception):
    """Base of all expected errors. The message says what was expected, what was given, and the remedy."""

    exit_code = 1


class CheckError(PerceiverError):
    """A check failed: parity, accuracy or precision is out of bounds, or scores are not finite."""

    exit_code = 1


class UsageError(PerceiverError):
    """The request is invalid: an unknown name, or options that contradict each other."""

    exit_code = 2


class BundleError(PerceiverError):
    """A bundle is damaged, incomplete, inconsistent, or of a schema version that this runtime can't read."""

    exit_code = 3


class SignatureError(BundleError):
    """A bundle lacks a signature that is required, or has a wrong one; or a key for it can't be used."""


class CheckpointError(PerceiverError):
    """A checkpoint can't be read, or its tensors do not fit the model."""

    exit_code = 3


class DatasetError(PerceiverError):
    """Labelled data can't be read, or arrays to be scored do not fit each other."""

    exit_code = 3


class FeedError(PerceiverError):
    """Arrays do not match the inputs of a session in name, rank, size, type or values."""

    exit_code = 3


class ReportError(PerceiverError):
    """The report of a self-test is damaged, incomplete or contradicts itself, or is of another bundle."""

    exit_code = 3


class SandboxError(PerceiverError):
    """A command with `--sandbox` crashed, or was ended for a limit."""

    exit_code = 3


class BuildError(PerceiverError):
    """TensorRT can't build an engine from a graph of the bundle."""

    exit_code = 3


class UnavailableError(PerceiverError):
    """This machine lacks a backend, device, package or resource that the request needs."""

    exit_code = 4


_PATHS = {
    errno.ENOENT: "check the path",
    errno.ENOTDIR: "a part of the path is no directory; check the path",
    errno.EISDIR: "name a file",
    errno.EEXIST: "name another path",
    errno.ENOTEMPTY: "name another path",
    errno.ELOOP: "the path has links that lead to themselves; remove them",
    errno.ENAMETOOLONG: "name a shorter path",
}
_OTHER_DISK = "free space there, or name a path on another disk"
_ALLOWED = "name a path that this user may use, or change its permissions"
_LIMIT = "raise this limit (ulimit), or close other files"
_MACHINE = {
    errno.EACCES: _ALLOWED,
    errno.EPERM: _ALLOWED,
    errno.EROFS: "the file system is read-only; name a path on another one",
    errno.ENOSPC: _OTHER_DISK,
    errno.EDQUOT: _OTHER_DISK,
    errno.EFBIG: "the limit of a file's size is reached (ulimit -f, or the file system's)",
    errno.EMFILE: _LIMIT,
    errno.ENFILE: _LIMIT,
    errno.ENOMEM: "free memory",
    errno.EAGAIN: "the limit of processes or threads is reached; raise it (ulimit -u)",
    errno.EIO: "the disk or network drive failed; check it",
    errno.ESTALE: "the network drive failed; mount it again",
    errno.EBUSY: "something else uses it; stop that",
}
_EXHAUSTED = ("can't allocate memory", "failed to allocate memory", "bad_alloc", "bad allocation", "unable to allocate")
"""Parts of messages of RuntimeErrors by which torch and ONNX Runtime report exhausted memory."""

_RUST = re.compile(r"\(os error (\d+)\)")
"""End of an OSError's message in libraries written in Rust, such as safetensors."""


def typed(error: BaseException) -> PerceiverError | None:
    """The error as a `PerceiverError` with an exit code, or None for a defect of the program."""
    if isinstance(error, PerceiverError):
        return error
    if isinstance(error, OSError):
        return _of_operating_system(error)
    text = str(error).strip().split("\n")[0]
    if (code := _RUST.search(text)) is not None:
        return _of_operating_system(OSError(int(code[1]), text))
    if isinstance(error, MemoryError) or any(phrase in text.lower() for phrase in _EXHAUSTED):
        return UnavailableError(f"not enough memory{text and f': {text:.200}'}; free some, or ask for less at a time")
    return None


def _of_operating_system(error: OSError) -> PerceiverError | None:
    where = " to ".join(str(name) for name in (error.filename, error.filename2) if name is not None) or "output"
    if error.errno in _PATHS:
        return UsageError(f"{where}: {error.strerror}; {_PATHS[error.errno]}")
    if error.errno in _MACHINE:
        return UnavailableError(f"{where}: {error.strerror}; {_MACHINE[error.errno]}")
    return None
