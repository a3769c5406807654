"""Take a Perceiver from PyTorch to the edge.

    import perceiver_deploy as pd

    pd.export("fashion-perceiver", "out/fashion-int8", precision="int8")
    print(pd.verify("out/fashion-int8").passed)
    with pd.open_session("out/fashion-int8") as session:
        logits = session.run({"pixel_values": images})["logits"]

Each command of `perceiver-export` is a function of its name here (`doctor` is `diagnose`, `models` is
`list_models`), but for `boards`, `sign` and `trtexec`.
Names are imported when first used, so that the command line's help does not wait for torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from perceiver_deploy.api.advise import advise as advise
    from perceiver_deploy.api.bench import bench as bench
    from perceiver_deploy.api.bench import bench as benchmark  # noqa: F401
    from perceiver_deploy.api.bisect import bisect as bisect
    from perceiver_deploy.api.demo import demo as demo
    from perceiver_deploy.api.doctor import diagnose as diagnose
    from perceiver_deploy.api.evaluate import evaluate as evaluate
    from perceiver_deploy.api.evaluate import evaluate_bundle as evaluate_bundle
    from perceiver_deploy.api.export import dry_run as dry_run
    from perceiver_deploy.api.export import dry_run as plan  # noqa: F401
    from perceiver_deploy.api.export import export as export
    from perceiver_deploy.api.growth import growth as growth
    from perceiver_deploy.api.inspect import inspect as inspect
    from perceiver_deploy.api.models import list_models as list_models
    from perceiver_deploy.api.models import list_models as models  # noqa: F401
    from perceiver_deploy.api.options import ExportOptions as ExportOptions
    from perceiver_deploy.api.report import report as report
    from perceiver_deploy.api.tune import tune as tune
    from perceiver_deploy.api.verify import verify as verify
    from perceiver_deploy.checkpoints import LoadOptions as LoadOptions
    from perceiver_exporters.diagnose.bisection.replay import run_replay as replay  # noqa: F401
    from perceiver_exporters.engines import build as build
    from perceiver_exporters.precision.options import QuantizationOptions as QuantizationOptions
    from perceiver_exporters.preflight import check as check
    from perceiver_runtime import BundleError as BundleError
    from perceiver_runtime import CheckError as CheckError
    from perceiver_runtime import CheckpointError as CheckpointError
    from perceiver_runtime import FeedError as FeedError
    from perceiver_runtime import PerceiverError as PerceiverError
    from perceiver_runtime import SignatureError as SignatureError
    from perceiver_runtime import UnavailableError as UnavailableError
    from perceiver_runtime import UsageError as UsageError
    from perceiver_runtime import __version__ as __version__
    from perceiver_runtime import load_bundle as load_bundle
    from perceiver_runtime import open_session as open_session

_ERRORS = (
    "BundleError",
    "CheckError",
    "CheckpointError",
    "FeedError",
    "PerceiverError",
    "SignatureError",
    "UnavailableError",
    "UsageError",
)
_HOME = {
    **dict.fromkeys((*_ERRORS, "__version__", "load_bundle", "open_session"), "perceiver_runtime"),
    "ExportOptions": "perceiver_deploy.api.options",
    "LoadOptions": "perceiver_deploy.checkpoints",
    "QuantizationOptions": "perceiver_exporters.precision.options",
    "advise": "perceiver_deploy.api.advise",
    "bench": "perceiver_deploy.api.bench",
    "benchmark": "perceiver_deploy.api.bench:bench",
    "bisect": "perceiver_deploy.api.bisect",
    "build": "perceiver_exporters.engines",
    "check": "perceiver_exporters.preflight",
    "demo": "perceiver_deploy.api.demo",
    "diagnose": "perceiver_deploy.api.doctor",
    "dry_run": "perceiver_deploy.api.export",
    "evaluate": "perceiver_deploy.api.evaluate",
    "evaluate_bundle": "perceiver_deploy.api.evaluate",
    "export": "perceiver_deploy.api.export",
    "growth": "perceiver_deploy.api.growth",
    "inspect": "perceiver_deploy.api.inspect",
    "list_models": "perceiver_deploy.api.models",
    "models": "perceiver_deploy.api.models:list_models",  # until the package of that name is imported
    "plan": "perceiver_deploy.api.export:dry_run",
    "replay": "perceiver_exporters.diagnose.bisection.replay:run_replay",
    "report": "perceiver_deploy.api.report",
    "tune": "perceiver_deploy.api.tune",
    "verify": "perceiver_deploy.api.verify",
}
"""Where each name is: a module, and the name there if it is another."""

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'perceiver_deploy' has no attribute {name!r}")
    module, _, attribute = _HOME[name].partition(":")
    return getattr(importlib.import_module(module), attribute or name)


def __dir__() -> list[str]:
    return __all__
