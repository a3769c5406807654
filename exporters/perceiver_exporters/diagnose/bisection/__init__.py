"""Where a bundle departs from its reference: the component, then the node, with a replay of it."""

from perceiver_exporters.diagnose.bisection.blame import Bisection, Blame
from perceiver_exporters.diagnose.bisection.claims import Breach, check_claims
from perceiver_exporters.diagnose.bisection.fresh import can_export_again
from perceiver_exporters.diagnose.bisection.search import bisect

__all__ = ["Bisection", "Blame", "Breach", "bisect", "can_export_again", "check_claims"]
