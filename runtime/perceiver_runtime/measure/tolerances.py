"""Constants from which tolerances are derived, by precision, and the check that a bundle's tolerances follow from them.

    rel_l2  = max(margin x noise, floor)
    centred = max(margin x centred noise, floor, resolution x |rows| / |rows - mean row|)

The exporter derives tolerances with them, and `verify` recomputes: a tolerance that does not follow is refused.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from perceiver_runtime.errors import BundleError
from perceiver_runtime.manifest import Manifest, Tolerance
from perceiver_runtime.measure.spread import Spread

MAX_TOLERANCE = 1.0
"""Tolerances are below it: a result of zeros has this relative error, so has the mean row relative to the spread."""


@dataclass(frozen=True)
class Margins:
    """Constants of one precision.

    Attributes:
        margin: Factor on the emulated noise, for what an emulation does not cover.
        floor: Smallest tolerance: the rounding of the precision's arithmetic.
        resolution: Relative rounding error of the type that results are computed in, which applies to constant parts
            too.
    """

    margin: float
    floor: float
    resolution: float

    def rel_l2(self, noise: float) -> float:
        """Tolerance of the relative L2 error."""
        return max(self.margin * noise, self.floor)

    def centred_floor(self, spread: Spread) -> float:
        """Smallest tolerance relative to the spread; 0 if rows do not vary."""
        return max(self.floor, self.resolution * spread.magnitude / spread.rms) if spread.rms else 0.0


SINGLE = 2.0**-21
MARGINS = {
    "fp32": Margins(8.0, SINGLE, SINGLE),
    "fp16": Margins(3.0, 2.0**-12, 2.0**-12),
    "bf16": Margins(3.0, 2.0**-9, 2.0**-9),
    "int8": Margins(2.0, 2.0**-8, SINGLE),
    "int8-dynamic": Margins(2.0, 2.0**-8, SINGLE),
    "fp8": Margins(2.0, 2.0**-6, SINGLE),
    "int4": Margins(2.0, 2.0**-6, SINGLE),
}


def varies(tolerance: Tolerance) -> bool:
    """Whether the golden rows of the tensor are known to differ."""
    return tolerance.derivation is not None and bool(tolerance.derivation.centred_floor)


def is_indistinct(tolerance: Tolerance) -> bool:
    """Whether golden rows differ by less than the precision may lose, so that no centred tolerance applies."""
    return varies(tolerance) and tolerance.centred is None


def check_tolerance(tolerance: Tolerance, manifest: Manifest) -> None:
    """Raise BundleError for a tolerance that is not below MAX_TOLERANCE, or does not follow from its noise."""
    where = f"manifest: tolerance of {tolerance.tensor} of {tolerance.component}"
    for name, value, end in (
        ("rel_l2", tolerance.rel_l2, MAX_TOLERANCE),
        ("centred", tolerance.centred or 0.0, MAX_TOLERANCE),
        ("noise", tolerance.noise, math.inf),
        ("centred_noise", tolerance.centred_noise, math.inf),
    ):
        if not 0.0 <= value < end:  # NaN is in no range
            raise BundleError(f"{where}: expected {name} from 0 to below {end:g}, got {value:g}; export again")
    if tolerance.derivation is not None:
        _check_derivation(tolerance, manifest.precision, where)


def check_spread(tolerance: Tolerance, manifest: Manifest, spread: Spread) -> None:
    """Raise BundleError if the floor of a centred tolerance does not follow from the golden rows."""
    if tolerance.derivation is None or tolerance.derivation.centred_floor is None:
        return
    expected, got = MARGINS[manifest.precision].centred_floor(spread), tolerance.derivation.centred_floor
    if not math.isclose(expected, got, rel_tol=1e-6):
        raise BundleError(
            f"manifest: tolerance of {tolerance.tensor} of {tolerance.component}: expected a centred floor of "
            f"{expected:.6g}, as the golden rows give it, got {got:.6g}; export again"
        )


def _check_derivation(tolerance: Tolerance, precision: str, where: str) -> None:
    made = tolerance.derivation
    assert made is not None
    if (known := MARGINS.get(precision)) is None:
        raise BundleError(
            f"{where}: precision {precision!r}; this runtime knows {', '.join(MARGINS)}; upgrade perceiver-runtime"
        )
    if (made.margin, made.floor) != (known.margin, known.floor):
        raise BundleError(
            f"{where}: expected margin {known.margin:g} and floor {known.floor:g} in {precision}, "
            f"got {made.margin:g} and {made.floor:g}; export again"
        )
    _require(known.rel_l2(tolerance.noise), tolerance.rel_l2, f"{where}: rel_l2")
    if made.centred_floor is None:
        return
    expected = centred_tolerance(known, tolerance.centred_noise, made.centred_floor)
    if (expected is None) != (tolerance.centred is None):
        raise BundleError(f"{where}: expected centred {expected}, got {tolerance.centred}; export again")
    if expected is not None and tolerance.centred is not None:
        _require(expected, tolerance.centred, f"{where}: centred")


def centred_tolerance(margins: Margins, noise: float, floor: float) -> float | None:
    """Tolerance relative to the spread; None if rows do not vary (floor 0) or the precision can't distinguish them."""
    value = max(margins.margin * noise, floor)
    return value if floor and value < MAX_TOLERANCE else None


def _require(expected: float, got: float, where: str) -> None:
    if not math.isclose(expected, got, rel_tol=1e-9):
        raise BundleError(f"{where}: expected {expected:.6g}, as its noise, margin and floor give it, got {got:.6g}")
