"""ONNX to engine: always strongly typed, so that the types in the graph are the types that run.

Nothing here asks TensorRT to choose a precision: the flags for that are gone in TensorRT 11, and where they exist a
build that ignored them still exits with success. Only TensorRT's own parser reads the graph, so an engine can be
built on a device with the lean wheel alone.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from perceiver_runtime.errors import BuildError, UsageError
from perceiver_runtime.machine import current_platform
from perceiver_runtime.tensorrt.api import (
    Builder,
    IBuilderConfig,
    INetworkDefinition,
    IOptimizationProfile,
    OnnxParser,
    ParserError,
    module_kind,
)
from perceiver_runtime.tensorrt.builder.attention import Form, Operators, decompose_unfused, use_operators
from perceiver_runtime.tensorrt.builder.products import matrix_products
from perceiver_runtime.tensorrt.builder.progress import Interruption, progress_monitor
from perceiver_runtime.tensorrt.builder.timings import keep_timings, use_timings
from perceiver_runtime.tensorrt.dialect import Dialect, dialect
from perceiver_runtime.tensorrt.fusion import fused_attention
from perceiver_runtime.tensorrt.logger import build_logger
from perceiver_runtime.tensorrt.sidecar import SIDECAR_SCHEMA, Sidecar
from perceiver_runtime.tensors import Profile, TensorSpec

MEBIBYTE = 1 << 20
DEFAULT_WORKSPACE = 1 << 30


@dataclass(frozen=True)
class BuildRequest:
    """One component to build.

    `workspace` bounds TensorRT's scratch memory, in bytes. `compute_capabilities` (`8.6`) name GPUs that need not be in
    this machine, which only TensorRT-RTX can build for; empty means the GPU here. `timing_cache` is a file
    that is read if it exists and written after the build, where this TensorRT has timing caches. `graph` is the content
    of `onnx`, its external weights located from `/`; empty, it is read from there. `attention` is the form to build.
    """

    component: str
    onnx: Path
    inputs: tuple[TensorSpec, ...]
    profiles: tuple[Profile, ...]
    graph_sha256: str
    workspace: int = DEFAULT_WORKSPACE
    compute_capabilities: tuple[str, ...] = ()
    version_compatible: bool = False
    timing_cache: Path | None = None
    graph: bytes = field(default=b"", repr=False)
    attention: Form = "products"


@dataclass(frozen=True)
class BuiltEngine:
    """A serialised engine, its identity, and what the build took. `log` holds TensorRT's warnings.

    `operators` tells what became of attention in the form of operators; empty in the form of products.
    """

    plan: bytes = field(repr=False)
    sidecar: Sidecar
    seconds: float
    layers: int
    log: tuple[str, ...]
    operators: Operators = field(default_factory=Operators)


@dataclass(frozen=True)
class BuildDevice:
    """The GPU that TensorRT tunes for, if one is in this machine."""

    compute_capability: str
    name: str
    jetpack: str | None = None


def build_engine(trt: ModuleType, request: BuildRequest, device: BuildDevice | None = None) -> BuiltEngine:
    """Build one component. A progress handler that raises stops the build.

    Raises BuildError if TensorRT's parser or builder refuses the graph (its own messages are quoted), UsageError if
    this TensorRT can't build for the requested GPUs.
    """
    rules, started = dialect(trt), time.perf_counter()
    logger = build_logger(trt)
    builder: Builder = trt.Builder(logger)
    network: INetworkDefinition = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    _parse(trt, network, logger, request)
    products = matrix_products(trt, network)  # before any is replaced by an operator of the same type
    operators = Operators()
    if rules.attention:
        decompose_unfused(trt, network)
    if request.attention == "operator":
        operators = use_operators(trt, network, rules)
    config: IBuilderConfig = builder.create_builder_config()
    _configure(trt, builder, network, config, request, rules)
    plan = _serialize(trt, builder, network, config, request, logger)
    if rules.timing_cache and request.timing_cache is not None:
        keep_timings(config, request.timing_cache)
    sidecar = Sidecar(
        schema_version=SIDECAR_SCHEMA.version,
        component=request.component,
        module=module_kind(trt),
        tensorrt=str(trt.__version__),
        compute_capabilities=_capabilities(request, device),
        platform=current_platform(),
        graph_sha256=request.graph_sha256,
        engine_sha256=hashlib.sha256(plan).hexdigest(),
        engine_bytes=len(plan),
        profiles=request.profiles,
        flags=flag_names(version_compatible=request.version_compatible),
        workspace_bytes=request.workspace,
        products=products,
        jetpack=device.jetpack if device else None,
        device=device.name if device else None,
        attention="operator" if operators.replaced else "products",
        fused_attention=fused_attention(logger.layers),
    )
    seconds = time.perf_counter() - started
    return BuiltEngine(plan, sidecar, seconds, network.num_layers, tuple(logger.messages), operators)


def _parse(trt: ModuleType, network: INetworkDefinition, logger: Any, request: BuildRequest) -> None:
    parser: OnnxParser = trt.OnnxParser(network, logger)
    graph, place = (request.graph, "/graph.onnx") if request.graph else (request.onnx.read_bytes(), str(request.onnx))
    if parser.parse(graph, place):
        return
    errors = [_describe(parser.get_error(i)) for i in range(parser.num_errors)]
    raise BuildError(
        f"component {request.component}: TensorRT {trt.__version__} can't parse {request.onnx.name}: "
        f"{'; '.join(errors) or 'no reason given'}; `perceiver-export check` names the rule and its remedy"
    )


def _describe(error: ParserError) -> str:
    return f"{error.node_operator()} {error.node_name()}: {error.desc()}".strip()


def _configure(
    trt: ModuleType,
    builder: Builder,
    network: INetworkDefinition,
    config: IBuilderConfig,
    request: BuildRequest,
    rules: Dialect,
) -> None:
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, request.workspace)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    # TF32 keeps 10 of FP32's 23 mantissa bits: an fp32 bundle must not lose the rest unasked.
    config.clear_flag(trt.BuilderFlag.TF32)
    if request.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
        # The embedded lean runtime is host code in a data file, which sessions refuse to load.
        config.set_flag(trt.BuilderFlag.EXCLUDE_LEAN_RUNTIME)
    _set_capabilities(trt, config, request, rules)
    _set_profiles(builder, network, config, request)
    if rules.timing_cache and request.timing_cache is not None:
        use_timings(config, request.timing_cache)


def _set_capabilities(trt: ModuleType, config: IBuilderConfig, request: BuildRequest, rules: Dialect) -> None:
    if not request.compute_capabilities:
        return
    if not rules.capability_targets:
        raise UsageError(
            f"compute capabilities {', '.join(request.compute_capabilities)}: {rules.name} builds only for the GPU of "
            "the machine it runs on; make a build kit and run `perceiver-run build` on the device"
        )
    config.num_compute_capabilities = len(request.compute_capabilities)
    for index, capability in enumerate(request.compute_capabilities):
        name = f"SM{capability.replace('.', '')}"
        members = trt.ComputeCapability.__members__
        if name not in members:
            known = ", ".join(member for member in members if member.startswith("SM"))
            raise UsageError(f"compute capability {capability}: expected one of {known} for {rules.name}")
        config.set_compute_capability(members[name], index)


def _set_profiles(builder: Builder, network: INetworkDefinition, config: IBuilderConfig, request: BuildRequest) -> None:
    """One optimisation profile per profile of the bundle. Raises BuildError if a dynamic input is left without one."""
    inputs: list[Any] = [network.get_input(index) for index in range(network.num_inputs)]
    dynamic = [tensor.name for tensor in inputs if -1 in tuple(tensor.shape)]
    specs = {spec.name: spec for spec in request.inputs}
    if dynamic and not request.profiles:
        raise BuildError(f"component {request.component}: no profile for {', '.join(dynamic)}, whose shape is dynamic")
    for ranges in request.profiles if dynamic else ():
        profile: IOptimizationProfile = builder.create_optimization_profile()
        for name in dynamic:
            profile.set_shape(name, *_shapes(request, specs[name], ranges))
        config.add_optimization_profile(profile)


def _shapes(request: BuildRequest, spec: TensorSpec, ranges: Profile) -> Sequence[tuple[int, ...]]:
    if missing := [symbol for symbol in spec.symbols if symbol not in ranges.dimensions]:
        raise BuildError(
            f"component {request.component}: profile {ranges.name} has no range for {', '.join(missing)} of {spec}; "
            "export again with a profile that covers it"
        )
    return ranges.shapes(spec)


def _serialize(
    trt: ModuleType,
    builder: Builder,
    network: INetworkDefinition,
    config: IBuilderConfig,
    request: BuildRequest,
    logger: Any,
) -> bytes:
    interruption = Interruption()
    config.progress_monitor = progress_monitor(trt, request.component, interruption)
    plan = builder.build_serialized_network(network, config)
    interruption.reraise()
    if plan is None:
        raise BuildError(
            f"component {request.component}: TensorRT {trt.__version__} could not build it: "
            f"{'; '.join(logger.errors) or 'no reason given'}; where it ran out of memory, allow more than "
            f"--workspace {-(-request.workspace // MEBIBYTE)}MiB, or export again with a smaller --max-batch"
        )
    return bytes(plan)


def _capabilities(request: BuildRequest, device: BuildDevice | None) -> tuple[str, ...]:
    return request.compute_capabilities or ((device.compute_capability,) if device else ())


def flag_names(*, version_compatible: bool) -> tuple[str, ...]:
    """Flags of a build, as its sidecar names them."""
    return ("VERSION_COMPATIBLE", "EXCLUDE_LEAN_RUNTIME") if version_compatible else ()
