"""Preflight: what keeps a bundle from its target, found without a GPU and before any build."""

from perceiver_exporters.preflight.check import check, engine_target
from perceiver_exporters.preflight.report import Finding, Forecast, PreflightReport

__all__ = ["Finding", "Forecast", "PreflightReport", "check", "engine_target"]
