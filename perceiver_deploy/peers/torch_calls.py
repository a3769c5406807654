"""PyTorch on the processor or a GPU: eager, whose attention is `scaled_dot_product_attention`, and compiled."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from perceiver_deploy.peers.workload import Workload
from perceiver_deploy.sources.source import blueprint
from perceiver_exporters.reference import Reference
from perceiver_runtime.errors import UnavailableError


def eager_call(workload: Workload) -> Callable[[], object]:
    """The reference module, in inference mode; a blueprint's components one after the other, on the processor.

    Raises UnavailableError where PyTorch finds no GPU, and for components on a GPU.
    """
    if not workload.is_whole and workload.device == "cpu":
        reference = Reference(blueprint(workload.model).cut)
        return lambda: reference.run(workload.feeds)
    module, arguments, named = workload.call()
    return _inference(workload.on_device(module), arguments, named, workload.device)


def compiled_call(workload: Workload) -> Callable[[], object]:
    """torch.compile at its defaults, compiled before this returns. Raises UnavailableError where that fails."""
    module, arguments, named = workload.call()
    call = _inference(torch.compile(workload.on_device(module)), arguments, named, workload.device)
    try:
        call()
    except Exception as error:  # of the compiler, its backend, or the C++ compiler that it calls
        raise UnavailableError(
            f"torch.compile: {type(error).__name__}: {str(error).strip().splitlines()[0]}"
        ) from error
    return call


@contextmanager
def without_tf32() -> Iterator[None]:
    """FP32 is what is compared: TF32 keeps 10 of its 23 mantissa bits, and is PyTorch's default in convolutions."""
    cudnn, cublas = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, cublas.allow_tf32
    cudnn.allow_tf32 = cublas.allow_tf32 = False
    try:
        yield
    finally:
        cudnn.allow_tf32, cublas.allow_tf32 = before


def _inference(
    run: Callable[..., object], arguments: tuple[Tensor, ...], named: Mapping[str, Tensor], device: str
) -> Callable[[], object]:
    """A call on the host's memory. On a GPU it copies in and out, as the run of a session does."""

    def call() -> object:
        if device == "cpu":
            with torch.inference_mode():
                return run(*arguments, **named)
        with torch.inference_mode(), without_tf32():
            given, by_name = tree_map_only(Tensor, lambda each: each.to(device), (arguments, dict(named)))
            return tree_map_only(Tensor, lambda each: each.cpu(), run(*given, **by_name))

    return call
