"""Empty stand-ins for TensorRT's shared libraries, so that the real bindings can be loaded and introspected.

The bindings wheels hold every class, enum and signature; NVIDIA's libraries (gigabytes, from its own index) hold
the code behind them. A stub defines the symbols that the bindings leave undefined and does nothing.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

LIBRARIES = ("libnvinfer", "libnvinfer_plugin", "libnvonnxparser")
ENTRY_POINT = re.compile(r"^(create|get|init)[A-Za-z]*(_INTERNAL|Registry|Version|Plugins)$")


def needed_symbols(extension: Path) -> tuple[str, ...]:
    """The TensorRT entry points that a bindings extension leaves undefined."""
    listing = subprocess.run(
        ["nm", "-D", "--undefined-only", str(extension)], capture_output=True, text=True, check=True
    ).stdout
    names = (line.split()[-1] for line in listing.splitlines())
    return tuple(sorted(name for name in names if ENTRY_POINT.match(name)))


def needed_libraries(extension: Path) -> tuple[str, ...]:
    """The sonames of TensorRT's libraries that the extension was linked against, such as `libnvinfer.so.10`."""
    listing = subprocess.run(["readelf", "-d", str(extension)], capture_output=True, text=True, check=True).stdout
    found = re.findall(r"\(NEEDED\).*\[(.+)\]", listing)
    return tuple(name for name in found if name.split(".so")[0] in LIBRARIES)


def build_stubs(extension: Path, directory: Path) -> Path:
    """Compile one stub per needed library into `directory` and return it. The first stub carries all symbols."""
    directory.mkdir(parents=True, exist_ok=True)
    code = "".join(f"void *{name}() {{ return 0; }}\n" for name in needed_symbols(extension))
    for index, soname in enumerate(needed_libraries(extension)):
        partial = directory / f"{soname}.{os.getpid()}"  # two test processes may build at the same time
        command = ["gcc", "-shared", "-fPIC", "-w", f"-Wl,-soname,{soname}", "-o", str(partial), "-x", "c", "-"]
        subprocess.run(command, input=code if index == 0 else "", text=True, check=True, capture_output=True)
        partial.replace(directory / soname)
    return directory
