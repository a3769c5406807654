"""Where a bundle departs from its reference: the component, then the node, with a replay of it."""

from perceiver_exporters.bisection.blame import Bisection, Blame
from perceiver_exporters.bisection.claims import Breach, check_claims
from perceiver_exporters.bisection.fresh import can_export_again
from perceiver_exporters.bisection.search import bisect

__all__ = ["Bisection", "Blame", "Breach", "bisect", "can_export_again", "check_claims"]
