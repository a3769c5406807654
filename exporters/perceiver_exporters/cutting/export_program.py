"""`export_program`: `torch.export` of a whole module, with errors that name the line of the user's code."""

from __future__ import annotations

import logging
import re
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode, free_unbacked_symbols

from perceiver_exporters.cutting.call import Called
from perceiver_exporters.cutting.conditions import check_conditions, is_users, line_of
from perceiver_exporters.ir.quiet import quiet
from perceiver_runtime.errors import CheckError, PerceiverError
from perceiver_runtime.tensors import Profile, TensorSpec

_SHAPES_LOGGER = "torch.fx.experimental.symbolic_shapes"
_GUARD = re.compile(r"(?:eval|runtime_assert) (.*?) \[guard added\] \(([^)]*)\)")


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
            exported, places = _export(called, given, shapes)
            check_conditions(exported.graph, _symbols(exported, inputs), profile, places)
            _refuse_data_dependent(exported.graph)
            if any(map(_mutates, exported.graph.nodes)):
                exported = exported.run_decompositions({})
                _refuse_side_effects(exported.graph_signature)
            return exported
    except CheckError as error:
        raise CheckError(f"{kind} can't be exported: {error}") from error
    except PerceiverError:
        raise
    except Exception as error:
        raise CheckError(f"{kind} can't be traced: {_reason(error)}") from error
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


def _export(
    called: Called, given: tuple[Tensor, ...], shapes: tuple[Mapping[int, Any], ...]
) -> tuple[torch.export.ExportedProgram, Mapping[str, str]]:
    """Trace; conditions on sizes that PyTorch can't prove become assertions of the program.

    Returns:
        The program, and where in the user's code its conditions were made, by their text.
    """

    def export(*, deferred: bool) -> torch.export.ExportedProgram:
        return torch.export.export(
            called,
            given,
            dynamic_shapes=(shapes,),
            strict=False,
            prefer_deferred_runtime_asserts_over_guards=deferred,
        )

    with _guards() as guards:
        try:
            exported = export(deferred=False)
        except torch._dynamo.exc.UserError as error:
            if "Constraints violated" not in str(error):
                raise
            if "specialized" in str(error):
                raise CheckError(_fixed(str(error), guards)) from error
            exported = export(deferred=True)
        return exported, {m[1]: m[2].rpartition("/")[2] for m in map(_GUARD.search, guards) if m is not None}


def _symbols(exported: torch.export.ExportedProgram, inputs: Sequence[TensorSpec]) -> Mapping[str, str]:
    """Names of the dimensions by PyTorch's symbols."""
    nodes = {node.name: node for node in exported.graph.nodes}
    given = [nodes[name] for name in exported.graph_signature.user_inputs if name in nodes]
    return {
        str(size): dimension
        for node, spec in zip(given, inputs, strict=True)
        for size, dimension in zip(node.meta["val"].shape, spec.shape, strict=True)
        if isinstance(dimension, str)
    }


def _fixed(message: str, guards: Sequence[str]) -> str:
    """What a dimension was taken for, and where."""
    found = dict(
        re.findall(r"marked (\w+) as dynamic but your code specialized it to be a constant \((\d+)\)", message)
    )
    where = next((g for value in found.values() for g in guards if re.search(rf"Eq\(\w+, {value}\)", g)), "")
    line = found_line[2].rpartition("/")[2] if (found_line := _GUARD.search(where)) else "a line that is not known"
    sizes = " and ".join(f"{name} for the constant {value}" for name, value in found.items())
    return (
        f"{line} takes {sizes}; len(x), int(size) and loops over a size do "
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


def _refuse_data_dependent(graph: fx.Graph) -> None:
    """Raise CheckError for a value whose shape depends on the content of an input: no buffer can be planned for it."""
    for node in graph.nodes:
        value = node.meta.get("val")
        if isinstance(value, Tensor) and free_unbacked_symbols(value.shape):
            raise CheckError(
                f"the shape of {node.target}{line_of(node)} depends on the content of an input; "
                "compute it over all entries, with a mask"
            )


def _refuse_side_effects(signature: torch.export.ExportGraphSignature) -> None:
    """Raise CheckError for a module that changes its buffers or inputs in place: a graph has no such effects."""
    for what, names in (("buffer", signature.buffers_to_mutate), ("input", signature.user_inputs_to_mutate)):
        for name in names.values():
            remedy = "take it as an input and return it" if what == "buffer" else "change a clone of it"
            raise CheckError(f"forward changes the {what} {name.removeprefix('module.')}; {remedy}")


def _mutates(node: fx.Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return bool(schema is not None and schema.is_mutable)


def _reason(error: BaseException) -> str:
    """The exception, with the last line outside of PyTorch that it passed through."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if is_users(f.filename)]
    where = f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    if isinstance(error, TypeError) and "Sym" in str(error):
        where += " (a dynamic size; --dynamic can fix it)"
    said = str(error).strip().split("\n\n")[0][:800]
    if isinstance(error, GuardOnDataDependentSymNode):
        said = "it branches on the content of an input; compute both results and choose with torch.where"
    return f"{type(error).__name__}{where}: {said}"
