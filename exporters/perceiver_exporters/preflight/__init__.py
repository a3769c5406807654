"""Preflight: what keeps a bundle from its target, found without a GPU and before any build."""

from perceiver_exporters.preflight.report import EngineMemoryEstimate, PreflightFinding, PreflightReport
from perceiver_exporters.preflight.run import check, engine_target

__all__ = ["EngineMemoryEstimate", "PreflightFinding", "PreflightReport", "check", "engine_target"]
