"""`bisect`: where a bundle departs from the model that it was made from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from perceiver_deploy.api.verify import backend_for
from perceiver_deploy.data.recorded import calibration_data
from perceiver_deploy.sources.reference import reference_of
from perceiver_deploy.sources.source import blueprint, fed
from perceiver_exporters.component import Blueprint
from perceiver_exporters.diagnose import bisection
from perceiver_exporters.diagnose.bisection import Diagnosis, can_export_again
from perceiver_exporters.precision import PRECISIONS
from perceiver_runtime import load_bundle
from perceiver_runtime.bundle import Bundle
from perceiver_runtime.errors import PerceiverError


@dataclass(frozen=True)
class Bisection:
    """What departs. `source` is what the bundle was compared with, or why the search ended at the component."""

    bundle: str
    source: str
    diagnoses: tuple[Diagnosis, ...]
    compared: int

    @property
    def passed(self) -> bool:
        """Whether nothing departs."""
        return not self.diagnoses


def bisect(
    bundle: str | Path,
    *,
    reference: str | None = None,
    data: object = None,
    backend: str | None = None,
    replays: str | Path | None = None,
) -> Bisection:
    """Find the component, then the node, where a bundle departs from its source.

    Args:
        bundle: Directory of the bundle.
        reference: Model of the zoo or checkpoint with the bundle's weights; None: the model that the bundle was
            exported from, found where it was or by its name. If that is not on this machine the search ends at the
            component, and the result says so.
        data: Data that the bundle was calibrated with, where they are not found by their name, or are made by code.
        backend: What runs the bundle; None takes the backend that computes as the bundle's target does.
        replays: Directory in which a replay of each departure is written; None: none is written.

    Returns:
        What departs, and what the bundle was compared with.

    Raises:
        BundleError: The bundle is damaged.
        UsageError: `reference` is no source, or has other weights than the bundle.
        DatasetError: `data` are not those that the bundle was made with.
    """
    loaded = load_bundle(bundle)
    made, source = _source(loaded, reference, data)
    chosen, place = backend or backend_for(loaded.manifest.target), None if replays is None else Path(replays)
    found = bisection.bisect(Path(bundle), made, backend=chosen, replays=place)
    return Bisection(str(bundle), source, found.diagnoses, found.compared)


def _source(bundle: Bundle, reference: str | None, data: object) -> tuple[Blueprint | None, str]:
    try:
        model = reference_of(bundle, reference)
    except PerceiverError as error:
        if reference is not None:
            raise
        return None, f"not reached: {error}"
    made, why = blueprint(model), ""
    if PRECISIONS[bundle.manifest.precision].calibrated:
        try:
            drawn = calibration_data(bundle, model, data)
        except PerceiverError as error:
            if data is not None:
                raise
            drawn, why = None, f" ({error})"
        made = made if drawn is None else fed(made, drawn)
    if not can_export_again(made, bundle.manifest):
        return None, (
            f"{model.name}, without the calibration data that the ranges of the bundle in {bundle.manifest.precision} "
            f"came from: the search ends at the component{why}"
        )
    return made, model.name
