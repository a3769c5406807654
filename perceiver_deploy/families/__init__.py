"""Model families by name: those of this package, and those that installed packages bring.

A new family is a module with a `Family` and a line here, or an entry point of another package:

    [project.entry-points."perceiver_deploy.families"]
    my-family = "my_package.my_module:MY_FAMILY"
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import EntryPoint, entry_points

from perceiver_deploy.families.classic import CLASSIC_IO, CLASSIC_LANGUAGE_MODEL, CLASSIC_PERCEIVER
from perceiver_deploy.families.family import Family
from perceiver_deploy.families.flow import OPTICAL_FLOW
from perceiver_deploy.families.hybrid import HYBRID
from perceiver_deploy.families.image_classifier import IMAGE_CLASSIFIERS
from perceiver_deploy.families.multimodal import MULTIMODAL_AUTOENCODER
from perceiver_deploy.families.text import MASKED_LANGUAGE_MODEL, SEQUENCE_CLASSIFIER
from perceiver_runtime.errors import UsageError

ALL = (
    HYBRID,
    MASKED_LANGUAGE_MODEL,
    SEQUENCE_CLASSIFIER,
    *IMAGE_CLASSIFIERS,
    OPTICAL_FLOW,
    MULTIMODAL_AUTOENCODER,
    CLASSIC_PERCEIVER,
    CLASSIC_IO,
    CLASSIC_LANGUAGE_MODEL,
)

ENTRY_POINTS = "perceiver_deploy.families"


def with_installed(families: Iterable[Family], installed: Iterable[EntryPoint]) -> dict[str, Family]:
    """Families by name. Raises UsageError for an entry point that is no family, or takes the name of another."""
    known = {family.name: family for family in families}
    for point in installed:
        where = f"entry point {point.name} = {point.value!r} of {ENTRY_POINTS}"
        try:
            family = point.load()
        except Exception as error:
            raise UsageError(f"{where}: {type(error).__name__}: {error}; repair or uninstall the package") from error
        if not isinstance(family, Family):
            raise UsageError(f"{where}: expected a Family, got {type(family).__name__}")
        if known.setdefault(family.name, family) is not family:
            raise UsageError(f"{where}: there is a family {family.name} already; rename one")
    return known


FAMILIES = with_installed(ALL, entry_points(group=ENTRY_POINTS))

__all__ = ["FAMILIES", "Family"]
