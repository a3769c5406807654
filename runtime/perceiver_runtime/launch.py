"""Import nothing from the directory that `python -m perceiver_runtime` is run in: it may be a bundle.

`-m` puts that directory first on the module path, so that a file `numpy.py` in it would be run in NumPy's place. This
module is imported before any other of the package, and takes it off again. Python itself looks there before it knows of
this package, so the command to use is `perceiver-run`, and build kits do not use `-m`.
"""

import os
import sys


def _leave_working_directory() -> None:
    named = {argument.removeprefix("-m").split(".")[0] for argument in sys.orig_argv}
    if sys.argv[:1] == ["-m"] and "perceiver_runtime" in named:  # `-m` stands there while a module is looked for
        here = os.path.realpath(os.curdir)
        sys.path[:1] = [path for path in sys.path[:1] if path and os.path.realpath(path) != here]


_leave_working_directory()
