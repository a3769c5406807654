"""The `trtexec` command of each component, with the profiles, types and inputs of a session's engine.

Engines of this project are strongly typed on every version of TensorRT: the graph's types run. So are these commands.
`--fp16` and its like, which TensorRT 10 still has, would let TensorRT choose types; they exclude `--stronglyTyped`.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from perceiver_exporters.bundle.stored_graphs import stored_graph
from perceiver_exporters.preflight.run import engine_target
from perceiver_exporters.targets.target import TARGETS
from perceiver_runtime.bundle import Bundle, load_bundle
from perceiver_runtime.errors import UsageError
from perceiver_runtime.format.outputs import check_directory, naming, replacing
from perceiver_runtime.golden import load_golden
from perceiver_runtime.manifest import ComponentEntry
from perceiver_runtime.tensorrt.builder.build import DEFAULT_WORKSPACE, MEBIBYTE
from perceiver_runtime.tensorrt.builder.profiles import component_profiles
from perceiver_runtime.tensorrt.dialect import Dialect, dialect_of
from perceiver_runtime.tensors import Array, Profile, TensorSpec

SCRIPT_NAME = "trtexec.sh"
FLAGS: Mapping[int, tuple[str, ...]] = {
    10: ("--stronglyTyped", "--useCudaGraph", "--useSpinWait", "--separateProfileRun"),
    11: ("--includeDataTransfers",),
}
"""By major version. In 11 the flags of 10 are the default, and copies between host and device are no longer timed."""
_SCRIPT = """#!/bin/sh
# Runs trtexec on each component of the bundle that is the first argument. Reports are written beside this script.
set -e
BUNDLE=$(realpath -- "${1:?usage: trtexec.sh BUNDLE}")
TRTEXEC=${TRTEXEC:-$(command -v trtexec || echo /usr/src/tensorrt/bin/trtexec)}
cd -- "$(dirname -- "$0")"
"""


@dataclass(frozen=True)
class TrtexecCommand:
    """How trtexec builds and times one component.

    Attributes:
        component: Name of the component.
        onnx: Path of its graph in the bundle.
        options: Options behind `--onnx`; paths are relative to the directory of the script.
        inputs: Input arrays by file, of the first golden sample.
    """

    component: str
    onnx: str
    options: tuple[str, ...]
    inputs: Mapping[str, Array] = field(repr=False, compare=False)

    def shell(self, program: str, bundle: str) -> str:
        """One line for a shell; `program` and `bundle` are inserted as they are."""
        return f"{program} --onnx={bundle}/{shlex.quote(self.onnx)} {shlex.join(self.options)}"


def trtexec_commands(
    bundle: str | Path, target: str | None = None, tensorrt: str | None = None
) -> tuple[TrtexecCommand, ...]:
    """The commands of all components.

    Args:
        bundle: The bundle.
        target: Whose TensorRT it is (None: the bundle's).
        tensorrt: Version of TensorRT (None: the target's oldest).

    Raises:
        UsageError: The target has no TensorRT, or TensorRT-RTX, which has no trtexec; or the name of an input can't be
            written in trtexec's options.
        UnavailableError: The version is older than 10.3.
        BundleError: The bundle is damaged.
    """
    with load_bundle(bundle) as loaded:
        dialect = _dialect(target or loaded.manifest.target, tensorrt)
        calls = load_golden(loaded)[0].components
        return tuple(_command(loaded, e, calls[e.name].inputs, dialect) for e in loaded.manifest.components)


def write_trtexec(commands: tuple[TrtexecCommand, ...], directory: Path) -> Path:
    """Write the input files and a script that runs all commands. Returns the script's path. Raises UsageError."""
    check_directory(directory)
    script = directory / SCRIPT_NAME
    script.unlink(missing_ok=True)  # it is written last
    for command in commands:
        for name, array in command.inputs.items():
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with naming(path):
                path.write_bytes(array.tobytes())
    lines = (command.shell('"$TRTEXEC"', '"$BUNDLE"') for command in commands)
    with replacing(script) as partial:
        partial.write_text(_SCRIPT + "\n".join(lines) + "\n", encoding="utf-8")
        partial.chmod(0o755)
    return script


def _dialect(target: str, version: str | None) -> Dialect:
    _, engines = engine_target(TARGETS, target)
    if engines.module != "tensorrt":
        raise UsageError(f"target {target}: expected one of TensorRT's, TensorRT for RTX has no trtexec; see `build`")
    return dialect_of("tensorrt", version or ".".join(map(str, engines.tensorrt)))


def _command(bundle: Bundle, entry: ComponentEntry, feeds: Mapping[str, Array], dialect: Dialect) -> TrtexecCommand:
    for spec in entry.inputs:
        if any(character in spec.name for character in ",:'"):
            raise UsageError(f"component {entry.name}: input {spec.name!r}: trtexec takes no name with , : or '")
    files = {f"inputs/{entry.name}-{index}.bin": spec.name for index, spec in enumerate(entry.inputs)}
    dynamic = tuple(spec for spec in entry.inputs if spec.symbols)
    profiles = component_profiles(bundle.manifest, entry)
    attention = any(node.op_type == "Attention" for node in stored_graph(bundle, entry.onnx).graph)
    options = (
        *_profile_options(profiles, dynamic),
        *((f"--shapes={_shapes({s.name: feeds[s.name].shape for s in dynamic})}",) if dynamic else ()),
        *(("--loadInputs=" + ",".join(f"{name}:{file}" for file, name in files.items()),) if files else ()),
        "--noTF32",
        *FLAGS[dialect.major],
        *(("--decomposableAttentions=*",) if attention and dialect.major >= 11 else ()),
        f"--memPoolSize=workspace:{DEFAULT_WORKSPACE // MEBIBYTE}M",
        "--profilingVerbosity=detailed",
        f"--saveEngine={entry.name}.engine",
        f"--exportTimes={entry.name}.times.json",
        f"--exportProfile={entry.name}.profile.json",
        f"--exportLayerInfo={entry.name}.graph.json",
    )
    return TrtexecCommand(entry.name, entry.onnx, options, {file: feeds[name] for file, name in files.items()})


def _profile_options(profiles: tuple[Profile, ...], dynamic: tuple[TensorSpec, ...]) -> list[str]:
    """One profile as it is, several behind their numbers; the first one is run."""
    options = []
    for index, profile in enumerate(profiles if dynamic else ()):
        if len(profiles) > 1:
            options.append(f"--profile={index}")
        for number, name in enumerate(("min", "opt", "max")):
            options.append(f"--{name}Shapes={_shapes({s.name: profile.shapes(s)[number] for s in dynamic})}")
    return options


def _shapes(shapes: Mapping[str, tuple[int, ...]]) -> str:
    return ",".join(f"{name}:{'x'.join(map(str, shape))}" for name, shape in shapes.items())
