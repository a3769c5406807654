"""Take a Perceiver from PyTorch to the edge.

    import perceiver_deploy as pd

    pd.export("fashion-perceiver", "out/fashion-int8", precision="int8")
    print(pd.verify("out/fashion-int8").passed)
    with pd.open_session("out/fashion-int8") as session:
        logits = session.run({"pixel_values": images})["logits"]

The names below are imported when first used, so that the command line's help does not wait for torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from perceiver_deploy.api.benchmark import benchmark as benchmark
    from perceiver_deploy.api.doctor import diagnose as diagnose
    from perceiver_deploy.api.evaluate import evaluate_bundle as evaluate_bundle
    from perceiver_deploy.api.export import export as export
    from perceiver_deploy.api.export import plan as plan
    from perceiver_deploy.api.models import models as models
    from perceiver_deploy.checkpoints import LoadOptions as LoadOptions
    from perceiver_runtime import open_session as open_session
    from perceiver_runtime import verify as verify

_HOME = {
    "LoadOptions": "perceiver_deploy.checkpoints",
    "benchmark": "perceiver_deploy.api.benchmark",
    "diagnose": "perceiver_deploy.api.doctor",
    "evaluate_bundle": "perceiver_deploy.api.evaluate",
    "export": "perceiver_deploy.api.export",
    "plan": "perceiver_deploy.api.export",
    "models": "perceiver_deploy.api.models",
    "open_session": "perceiver_runtime",
    "verify": "perceiver_runtime",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'perceiver_deploy' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
