"""Remove the working directory from the module path of `python -m perceiver_runtime`: it may be a bundle.

`-m` puts that directory first on the module path, where a file `numpy.py` would be imported instead of NumPy. This
module is imported before all others of the package. Python looks up this package itself there first, so the safe
command is `perceiver-run`, and build kits do not use `-m`.
"""

import os
import sys


def _leave_working_directory() -> None:
    named = {argument.removeprefix("-m").split(".")[0] for argument in sys.orig_argv}
    if sys.argv[:1] == ["-m"] and "perceiver_runtime" in named:  # `-m` stands there while a module is looked for
        here = os.path.realpath(os.curdir)
        sys.path[:1] = [path for path in sys.path[:1] if path and os.path.realpath(path) != here]


_leave_working_directory()
