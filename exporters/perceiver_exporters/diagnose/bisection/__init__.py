"""Bisection: the component, then the node, where a bundle differs from its reference."""

from perceiver_exporters.diagnose.bisection.claims import Breach, check_claims
from perceiver_exporters.diagnose.bisection.diagnosis import Bisection, Diagnosis
from perceiver_exporters.diagnose.bisection.recorded_export import can_export_again
from perceiver_exporters.diagnose.bisection.search import bisect

__all__ = ["Bisection", "Breach", "Diagnosis", "bisect", "can_export_again", "check_claims"]
