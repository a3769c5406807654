"""`export_program`: `torch.export` of a whole module, with errors that name the line of the user's code."""

from __future__ import annotations

import logging
import re
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols

from perceiver_exporters.cutting.call import Called
from perceiver_exporters.ir.quiet import quiet
from perceiver_runtime.errors import CheckError, PerceiverError
from perceiver_runtime.tensors import Profile, TensorSpec

_SHAPES_LOGGER = "torch.fx.experimental.symbolic_shapes"
_GUARD = re.compile(r"eval (.*?) \[guard added\] \(([^)]*)\)")


def export_program(
    called: Called, given: tuple[Tensor, ...], inputs: Sequence[TensorSpec], profile: Profile
) -> torch.export.ExportedProgram:
    """Trace a module over the ranges of a profile, without operations that change their operands.

    Raises:
        CheckError: PyTorch can't trace it.
    """
    dims = {n: torch.export.Dim(n, min=r.min, max=r.max) for n, r in profile.dimensions.items() if r.min < r.max}
    shapes = tuple({i: dims[d] for i, d in enumerate(spec.shape) if d in dims} for spec in inputs)
    kind = type(called.module).__name__
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with quiet(), torch.no_grad():
            exported = _export(called, given, shapes, profile)
            _refuse_data_dependent(exported.graph, kind)
            if changed := list(exported.run_decompositions({}).graph_signature.buffers_to_mutate.values()):
                raise CheckError(
                    f"{kind} can't be exported: forward changes the buffer {changed[0].removeprefix('module.')}; take "
                    "it as an input and return it"
                )
            return exported.run_decompositions({}) if any(map(_mutates, exported.graph.nodes)) else exported
    except PerceiverError:
        raise
    except Exception as error:
        raise CheckError(f"{kind} can't be traced: {_reason(error)}") from error
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


def _export(
    called: Called, given: tuple[Tensor, ...], shapes: tuple[Mapping[int, Any], ...], profile: Profile
) -> torch.export.ExportedProgram:
    """Trace; conditions on sizes that PyTorch can't prove are checked at the smallest and largest sizes."""
    dynamic = (shapes,)
    with _guards() as guards:
        try:
            return torch.export.export(called, given, dynamic_shapes=dynamic, strict=False)
        except torch._dynamo.exc.UserError as error:
            if "Constraints violated" not in str(error):
                raise
            if "specialized" in str(error):
                raise CheckError(_fixed(type(called.module).__name__, str(error), guards)) from error
    deferred = torch.export.export(
        called, given, dynamic_shapes=dynamic, strict=False, prefer_deferred_runtime_asserts_over_guards=True
    )
    checked = deferred.module()
    for end in ("min", "opt", "max"):
        sizes = {name: getattr(range_, end) for name, range_ in profile.dimensions.items()}
        zeros = (torch.zeros(_shape(t, axes, sizes), dtype=t.dtype) for t, axes in zip(given, shapes, strict=True))
        with FakeTensorMode(allow_non_fake_inputs=True):
            checked(*zeros)
    return deferred


def _shape(tensor: Tensor, axes: Mapping[int, Any], sizes: Mapping[str, int]) -> list[int]:
    return [sizes[axes[axis].__name__] if axis in axes else size for axis, size in enumerate(tensor.shape)]


def _fixed(kind: str, message: str, guards: Sequence[str]) -> str:
    """What a dimension was taken for, and where."""
    found = dict(
        re.findall(r"marked (\w+) as dynamic but your code specialized it to be a constant \((\d+)\)", message)
    )
    where = next((g for value in found.values() for g in guards if re.search(rf"Eq\(\w+, {value}\)", g)), "")
    line = found_line[2] if (found_line := _GUARD.search(where)) else "a line that PyTorch does not name"
    sizes = " and ".join(f"{name} for the constant {value}" for name, value in found.items())
    return (
        f"{kind} can't be traced with dynamic sizes: {line} takes {sizes}; len(x), int(size) and loops over a size do "
        "that (x.shape[0] does not); change the line, or fix the size with --dynamic"
    )


@contextmanager
def _guards() -> Iterator[list[str]]:
    """Messages of PyTorch about conditions on sizes, with the line of code that made them."""
    found: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "[guard added]" in (text := record.getMessage()):
                found.append(text)

    logger, handler = logging.getLogger(_SHAPES_LOGGER), Handler()
    level, propagate, others = logger.level, logger.propagate, list(logger.handlers)
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(logging.INFO)
    try:
        yield found
    finally:
        logger.handlers, logger.propagate = others, propagate
        logger.setLevel(level)


def _refuse_data_dependent(graph: fx.Graph, kind: str) -> None:
    """Raise CheckError for a value whose shape depends on the content of an input: no buffer can be planned for it."""
    for node in graph.nodes:
        value = node.meta.get("val")
        if isinstance(value, Tensor) and free_unbacked_symbols(value.shape):
            lines = re.findall(r'File "([^"]+)", line (\d+)', node.meta.get("stack_trace") or "")
            users = [f"{file}:{line}" for file, line in lines if _is_users(file)]
            where = f" at {users[-1]}" if users else ""
            raise CheckError(
                f"{kind} can't be exported: the shape of {node.target}{where} depends on the content of an input; "
                "compute it over all entries, with a mask"
            )


def _mutates(node: fx.Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return bool(schema is not None and schema.is_mutable)


def _reason(error: BaseException) -> str:
    """The exception, with the last line outside of PyTorch that it passed through."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if _is_users(f.filename)]
    where = f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    if isinstance(error, TypeError) and "Sym" in str(error):
        where += " (a dynamic size; --dynamic can fix it)"
    return f"{type(error).__name__}{where}: {str(error).strip().split(chr(10) * 2)[0][:800]}"


def _is_users(filename: str) -> bool:
    parts = Path(filename).parts
    return not {"torch", "perceiver_exporters", "perceiver_deploy"} & set(parts) and not filename.startswith("<")
