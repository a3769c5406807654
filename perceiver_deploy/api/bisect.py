"""`bisect`: where a bundle departs from the model that it was made from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from perceiver_deploy.api.verify import backend_for
from perceiver_deploy.sources.reference import reference_of
from perceiver_deploy.sources.source import blueprint
from perceiver_exporters.component import Blueprint
from perceiver_exporters.diagnose import bisection
from perceiver_exporters.diagnose.bisection import Diagnosis, can_export_again
from perceiver_runtime import load_bundle
from perceiver_runtime.bundle import Bundle
from perceiver_runtime.errors import PerceiverError


@dataclass(frozen=True)
class Bisection:
    """`source` says what the bundle was compared with, or why it could not be: then blame ends at the component."""

    bundle: str
    source: str
    diagnoses: tuple[Diagnosis, ...]
    compared: int

    @property
    def passed(self) -> bool:
        """Whether nothing departs."""
        return not self.diagnoses


def bisect(
    path: str | Path,
    *,
    reference: str | None = None,
    backend: str | None = None,
    replays: Path | None = None,
) -> Bisection:
    """Find the component, then the node, where a bundle departs from its source.

    The source is the model that the bundle was exported from, found where it was or by its name, or `reference`: a
    model of the zoo or a checkpoint directory with the same weights. If the bundle's own can't be found here, the
    search ends at the component and says so. A replay of each departure is written under `replays`. Raises BundleError
    for a damaged bundle, and for a given `reference` what `reference_of` raises.
    """
    bundle = load_bundle(path)
    made, source = _source(bundle, reference)
    found = bisection.bisect(Path(path), made, backend=backend or backend_for(bundle.manifest.target), replays=replays)
    return Bisection(str(path), source, found.diagnoses, found.compared)


def _source(bundle: Bundle, reference: str | None) -> tuple[Blueprint | None, str]:
    try:
        model = reference_of(bundle, reference)
    except PerceiverError as error:
        if reference is not None:
            raise
        return None, f"not reached: {error}"
    made = blueprint(model)
    if not can_export_again(made, bundle.manifest):
        return None, (
            f"{model.name}, without the calibration data that the ranges of the bundle in {bundle.manifest.precision} "
            "came from: the search ends at the component"
        )
    return made, model.name
