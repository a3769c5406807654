"""Preflight: checks of a bundle against a target with engines, without a GPU and before any build."""

from perceiver_exporters.preflight.report import EngineMemoryEstimate, PreflightFinding, PreflightReport
from perceiver_exporters.preflight.run import check, engine_target

__all__ = ["EngineMemoryEstimate", "PreflightFinding", "PreflightReport", "check", "engine_target"]
