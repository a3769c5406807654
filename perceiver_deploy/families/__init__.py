"""The families, by name. Adding one is a module with a `Family` and a line here."""

from __future__ import annotations

from perceiver_deploy.families.family import Family
from perceiver_deploy.families.image import PATCH_CLASSIFIER

FAMILIES: dict[str, Family] = {family.name: family for family in (PATCH_CLASSIFIER,)}

__all__ = ["FAMILIES", "Family"]
