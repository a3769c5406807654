"""PyTorch on the processor: eager, whose attention is `scaled_dot_product_attention`, and compiled."""

from __future__ import annotations

from collections.abc import Callable

import torch

from perceiver_deploy.peers.workload import Workload
from perceiver_exporters.reference import Reference
from perceiver_runtime.errors import UnavailableError


def eager_call(workload: Workload) -> Callable[[], object]:
    """The reference module, in inference mode; a blueprint's components one after the other."""
    if not workload.is_whole:
        assert workload.model.made is not None  # or it were whole
        reference = Reference(workload.model.made.cut)
        return lambda: reference.run(workload.feeds)
    module, arguments, named = workload.call()

    def call() -> object:
        with torch.inference_mode():
            return module(*arguments, **named)

    return call


def compiled_call(workload: Workload) -> Callable[[], object]:
    """torch.compile at its defaults, compiled before this returns. Raises UnavailableError where that fails."""
    module, arguments, named = workload.call()
    compiled = torch.compile(module)

    def call() -> object:
        with torch.inference_mode():
            return compiled(*arguments, **named)

    try:
        call()
    except Exception as error:  # of the compiler, its backend, or the C++ compiler that it calls
        raise UnavailableError(
            f"torch.compile: {type(error).__name__}: {str(error).strip().splitlines()[0]}"
        ) from error
    return call
