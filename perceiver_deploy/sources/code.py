"""User code: a function that the command line names as `file.py:function` or `package.module:function`.

Nothing else in the package runs code of a user: what a bundle or a checkpoint directory holds is never imported.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import re
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from perceiver_runtime.errors import UsageError

_MODULE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")


@dataclass(frozen=True)
class UserFunction:
    """A function of the user's.

    Attributes:
        spec: How the user named it.
        file: Absolute path of the file that defines it.
        sha256: Hash of that file as it was run.
        function: The function.
    """

    spec: str
    file: Path
    sha256: str
    function: Callable[..., Any]

    def call(self, *arguments: Any) -> Any:
        """Call it. Raises UsageError that names the line of the user's code, for any exception of it."""
        try:
            inspect.signature(self.function).bind(*arguments)
        except TypeError as error:
            takes = f"{len(arguments)} arguments" if arguments else "no arguments"
            raise UsageError(f"{self.spec}: expected a function that can be called with {takes}: {error}") from error
        except ValueError:
            pass  # of a builtin, whose signature is not known
        try:
            return self.function(*arguments)
        except (Exception, SystemExit) as error:
            raise UsageError(f"{self.spec}: {raised(error, self.file)}") from error


def names_code(text: str) -> bool:
    """Whether a text has the form `file.py:function` or `package.module:function`."""
    place, colon, function = text.rpartition(":")
    return bool(colon and function.isidentifier() and (place.endswith(".py") or _MODULE.fullmatch(place)))


def load_function(spec: str, sha256: str | None = None) -> UserFunction:
    """Import the function that a user named. The file runs, as `python file.py` would run it.

    Args:
        spec: `file.py:function` or `package.module:function`.
        sha256: Hash that the file must have, where a bundle records one; checked before the file runs.

    Returns:
        The function with the hash of its file.

    Raises:
        UsageError: No such file or function, another hash, or the file raises an exception when it is run.
    """
    place, _, name = spec.rpartition(":")
    if not names_code(spec):
        raise UsageError(f"{spec!r:.200}: expected file.py:function or package.module:function")
    file = Path(place).absolute() if place.endswith(".py") else _file_of_module(place, spec)
    try:
        content = file.read_bytes()
    except OSError as error:
        raise UsageError(f"{spec}: expected a Python file {file}: {error.strerror}") from error
    found = hashlib.sha256(content).hexdigest()
    if sha256 not in (None, found):
        raise UsageError(
            f"{spec}: expected the code that the bundle was made with ({sha256:.12}), got {found:.12}; restore the "
            "file, or export again"
        )
    module = _run(file, content, spec) if place.endswith(".py") else _import(place, spec, file)
    function = getattr(module, name, None)
    if not callable(function):
        known = ", ".join(n for n, each in vars(module).items() if callable(each) and not n.startswith("_"))
        raise UsageError(f"{spec}: expected a function {name} in {file}, found {known or 'none'}")
    return UserFunction(spec, file, found, function)


def raised(error: BaseException, file: Path | None = None) -> str:
    """An exception, with the line of the user's file (None: the innermost frame) that it passed through last."""
    frames = traceback.extract_tb(error.__traceback__)
    inside = [frame for frame in frames if file is not None and Path(frame.filename) == file] or frames
    where = f" at {inside[-1].filename}:{inside[-1].lineno}" if inside else ""
    return f"{type(error).__name__}{where}: {error}"


def _file_of_module(name: str, spec: str) -> Path:
    try:
        found = importlib.util.find_spec(name)
    except (ImportError, ValueError) as error:
        raise UsageError(f"{spec}: expected an importable module {name}: {error}") from error
    if found is None or found.origin is None or not found.origin.endswith(".py"):
        raise UsageError(f"{spec}: expected an importable module {name} written in Python, found none on sys.path")
    return Path(found.origin)


def _run(file: Path, content: bytes, spec: str) -> ModuleType:
    """Run what was hashed as a module of its own; its directory comes first on the path, as for a script."""
    module = ModuleType(f"_user_{hashlib.sha256(str(file).encode()).hexdigest()[:12]}")
    module.__file__ = str(file)
    sys.modules[module.__name__] = module  # dataclasses look their module up
    sys.path.insert(0, str(file.parent))
    try:
        exec(compile(content, str(file), "exec"), module.__dict__)
    except (Exception, SystemExit) as error:
        del sys.modules[module.__name__]
        raise UsageError(f"{spec}: {raised(error, file)}") from error
    finally:
        sys.path.remove(str(file.parent))
    return module


def _import(name: str, spec: str, file: Path) -> ModuleType:
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        raise UsageError(f"{spec}: {raised(error, file)}") from error
