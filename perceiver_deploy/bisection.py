"""`bisect_bundle`: where a bundle departs from the model that it was made from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from perceiver_deploy.source import blueprint, reference_of
from perceiver_deploy.verification import backend_for
from perceiver_exporters.bisection import Blame, bisect, can_export_again
from perceiver_exporters.component import Blueprint
from perceiver_runtime import load_bundle
from perceiver_runtime.errors import PerceiverError
from perceiver_runtime.manifest import Manifest


@dataclass(frozen=True)
class BundleBisection:
    """`source` says what the bundle was compared with, or why it could not be: then blame ends at the component."""

    bundle: str
    source: str
    blames: tuple[Blame, ...]
    compared: int

    @property
    def passed(self) -> bool:
        """Whether nothing departs."""
        return not self.blames


def bisect_bundle(
    path: str | Path,
    *,
    reference: str | None = None,
    backend: str | None = None,
    replays: Path | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> BundleBisection:
    """Find the component, then the node, where a bundle departs from its source.

    The source is the model that the manifest names, or `reference`: a model of the zoo or a checkpoint directory with
    the same weights. If the manifest's own can't be found here, the search ends at the component and says so. A replay
    of each departure is written under `replays`. Raises BundleError for a damaged bundle, and for a given `reference`
    what `reference_of` raises.
    """
    manifest = load_bundle(path).manifest
    made, source = _source(manifest, reference)
    found = bisect(
        Path(path), made, backend=backend or backend_for(manifest.target), replays=replays, progress=progress
    )
    return BundleBisection(str(path), source, found.blames, found.compared)


def _source(manifest: Manifest, reference: str | None) -> tuple[Blueprint | None, str]:
    try:
        model = reference_of(manifest.source, reference)
    except PerceiverError as error:
        if reference is not None:
            raise
        return None, f"not reached: {error}"
    made = blueprint(model)
    if not can_export_again(made, manifest):
        return None, (
            f"{model.name}, without the calibration data that the bundle's {manifest.precision} ranges came from: the "
            "search ends at the component"
        )
    return made, model.name
