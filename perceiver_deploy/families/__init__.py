"""Model families by name. A new family is a module with a `Family`, and a line here."""

from __future__ import annotations

from perceiver_deploy.families.classic import CLASSIC_IO, CLASSIC_LANGUAGE_MODEL, CLASSIC_PERCEIVER
from perceiver_deploy.families.family import Family
from perceiver_deploy.families.flow import OPTICAL_FLOW
from perceiver_deploy.families.hybrid import HYBRID
from perceiver_deploy.families.image_classifier import IMAGE_CLASSIFIERS
from perceiver_deploy.families.multimodal import MULTIMODAL_AUTOENCODER
from perceiver_deploy.families.text import MASKED_LANGUAGE_MODEL, SEQUENCE_CLASSIFIER

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

FAMILIES: dict[str, Family] = {family.name: family for family in ALL}

__all__ = ["FAMILIES", "Family"]
