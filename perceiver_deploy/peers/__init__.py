"""Peers: other ways to run a model on this machine, timed beside its bundle on the same inputs (`PEERS`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from perceiver_deploy.peers.onnx_runtimes import onnxruntime_call, openvino_call
from perceiver_deploy.peers.torch_calls import compiled_call, eager_call
from perceiver_deploy.peers.workload import Workload
from perceiver_runtime.errors import UsageError
from perceiver_runtime.suggest import did_you_mean

__all__ = ["PEERS", "Peer", "Workload", "check_peers"]


@dataclass(frozen=True)
class Peer:
    """A title for tables, and what makes a call; it raises UnavailableError where the peer can't run the model."""

    title: str
    make: Callable[[Workload], Callable[[], object]]


PEERS: Mapping[str, Peer] = {
    "torch": Peer("PyTorch eager", eager_call),
    "torch-compile": Peer("torch.compile", compiled_call),
    "onnxruntime": Peer("ONNX Runtime, one graph", onnxruntime_call),
    "openvino": Peer("OpenVINO, one graph", openvino_call),
}
"""FP32 all. `onnxruntime` and `openvino` run what `torch.onnx.export` makes of the whole module at these sizes."""


def check_peers(names: Iterable[str]) -> None:
    """Raise UsageError for a name that is none."""
    for name in names:
        if name not in PEERS:
            raise UsageError(
                f"against (--against): expected one of {', '.join(PEERS)}, got {name!r:.40}{did_you_mean(name, PEERS)}"
            )
