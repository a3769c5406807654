"""`preprocessor_config.json`: the settings of an image processor of transformers, or why they can't be applied here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from perceiver_deploy.checkpoints.fields import (
    FLAG,
    MAX_SIDE,
    PAIR,
    SIDE,
    Field,
    Kind,
    either,
    listed,
    number,
    optional,
    read,
    shown,
    whole,
)
from perceiver_deploy.checkpoints.files.json_file import read_json
from perceiver_runtime.settings import Filter, ImageSettings, Processing

PREPROCESSOR = "preprocessor_config.json"
PERCEIVER = "PerceiverImageProcessor"
IMAGENET = {"image_mean": (0.485, 0.456, 0.406), "image_std": (0.229, 0.224, 0.225)}
CLIP = {
    "image_mean": (0.48145466, 0.4578275, 0.40821073),
    "image_std": (0.26862954, 0.26130258, 0.27577711),
}
HALVES = {"image_mean": (0.5, 0.5, 0.5), "image_std": (0.5, 0.5, 0.5)}
COMMON = {
    "do_resize": True,
    "do_center_crop": False,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "do_pad": False,
    "resample": 3,
}
EDGE = {"size": {"shortest_edge": 224}, "do_center_crop": True, "crop_size": 224, "square": False}

PROCESSORS: Mapping[str, Mapping[str, Any]] = {
    PERCEIVER: {**COMMON, **IMAGENET, "size": 224, "crop_size": 256, "do_center_crop": True},
    "ViTImageProcessor": {**COMMON, **HALVES, "size": 224, "resample": 2},
    "DeiTImageProcessor": {**COMMON, **HALVES, "size": 256, "crop_size": 224, "do_center_crop": True},
    "PvtImageProcessor": {**COMMON, **IMAGENET, "size": 224},
    "SiglipImageProcessor": {**COMMON, **HALVES, "size": {"height": 224, "width": 224}, "square": False},
    "BlipImageProcessor": {**COMMON, **CLIP, "size": 384},
    "CLIPImageProcessor": {**COMMON, **CLIP, **EDGE},
    "ChineseCLIPImageProcessor": {**COMMON, **CLIP, **EDGE},
    "BitImageProcessor": {**COMMON, **CLIP, **EDGE},
    "MobileNetV1ImageProcessor": {**COMMON, **HALVES, **EDGE, "size": {"shortest_edge": 256}, "resample": 2},
}
"""Image processors whose steps are known here, with the defaults of their settings in transformers.

They resize, crop, rescale and normalise; Perceiver's crops a part of the image and then resizes it. `square` is what a
size of one number means: both sides, or the shorter one.
"""
FILTERS: Mapping[int | None, Filter] = {
    **dict(enumerate(("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"))),
    None: "bilinear",
}
NEEDED = {"do_resize": "size", "do_rescale": "rescale_factor", "do_normalize": "image_mean"}
"""The setting that each step needs. Null is no value: transformers does not put the default in its place."""
SIZE = Kind(
    f"an integer from 1 to {MAX_SIDE:,}, or several by name, such as height and width",
    lambda value: (
        SIDE.holds(value)
        or PAIR.holds(value)
        or (isinstance(value, dict) and all(side is None or SIDE.holds(side) for side in value.values()))
    ),
)
CHANNELS = either(number(-1e6, 1e6), listed(number(-1e6, 1e6), range(1, 1025)))
FIELDS: Mapping[str, Field] = {
    **{f"do_{step}": Field(optional(FLAG), None) for step in ("resize", "center_crop", "rescale", "normalize", "pad")},
    "size": Field(optional(SIZE), None),
    "crop_size": Field(optional(SIZE), None),
    "resample": Field(optional(whole(0, 1000)), None),
    "rescale_factor": Field(optional(number(-1e6, 1e6)), None),
    "image_mean": Field(optional(CHANNELS), None),
    "image_std": Field(optional(CHANNELS), None),
}
WITHOUT_EFFECT = frozenset(
    (
        "image_processor_type",
        "feature_extractor_type",
        "processor_class",
        "do_convert_rgb",
        "return_tensors",
        "device",
        "disable_grouping",
        "input_data_format",
        "default_to_square",
        "image_seq_length",
        "_valid_processor_keys",
    )
)
"""Other settings that change nothing for RGB images."""


@dataclass(frozen=True)
class FoundProcessing:
    """What a file states: the processing, which may be a refusal, and a note for users."""

    processing: Processing
    notes: tuple[str, ...] = ()

    @property
    def image(self) -> ImageSettings | None:
        """The settings, if they are known."""
        return self.processing.image


def read_image_processor(directory: Path) -> FoundProcessing | None:
    """The image processor that a checkpoint states; None without a file.

    Raises CheckpointError for a value that no processor takes.
    """
    path = directory / PREPROCESSOR
    if not path.is_file():
        return None
    given = read_json(path)
    named = given.get("image_processor_type") or given.get("feature_extractor_type") or PERCEIVER
    name = named.replace("FeatureExtractor", "ImageProcessor") if isinstance(named, str) else shown(named)
    fast, name = name.endswith("Fast"), name.removesuffix("Fast")
    why = _unknown(name, given)
    values: dict[str, Any] = {}
    if not why:
        defaults = PROCESSORS[name]
        stated = read(given, FIELDS, str(path))
        values = {key: value if key in given else defaults.get(key) for key, value in stated.items()}
        values |= {"square": defaults.get("square", True), "crop_first": name == PERCEIVER}
        why = _refusal(values)
    if why:
        return _refused(why)
    notes = (f"{path}: {named} resizes with torchvision; images are resized as Pillow does, with other roundings",)
    return FoundProcessing(Processing(image=_settings(values), origin=PREPROCESSOR), notes if fast else ())


def with_size(found: FoundProcessing, size: tuple[int, int]) -> FoundProcessing:
    """The processor for another size of images than the file's; a refusal if what it crops is of one size."""
    if found.image is None:
        return found
    if found.image.center_crop or found.image.shortest_edge:
        return _refused(f"it makes images of one size, and the model was exported for {size[0]} x {size[1]}")
    if not found.image.size:
        return found
    made, taken = (f"{sides[0]} x {sides[1]}" for sides in (found.image.size, size))
    note = f"{PREPROCESSOR} resizes images to {made}, and the model takes {taken}: they are resized to that"
    image = replace(found.image, size=size)
    return replace(found, processing=replace(found.processing, image=image), notes=(*found.notes, note))


def _refused(why: str) -> FoundProcessing:
    return FoundProcessing(Processing(refusal=f"{PREPROCESSOR} of the checkpoint: {why}", origin=PREPROCESSOR))


def _unknown(name: str, given: Mapping[str, Any]) -> str:
    if name not in PROCESSORS:
        return f"the processor {name:.80} is not known; expected one of {', '.join(PROCESSORS)}"
    if others := sorted(set(given) - set(FIELDS) - WITHOUT_EFFECT - {"data_format"}):
        return f"the setting {others[0]:.80} = {shown(given[others[0]])} is not known"
    if given.get("data_format") not in (None, "channels_first"):
        return f"data_format: expected channels_first, got {shown(given['data_format'])}"
    return ""


def _refusal(values: Mapping[str, Any]) -> str:
    """Why these settings, each of which is valid, can't be applied; empty if they can."""
    if values["do_pad"]:
        return "do_pad: padding is not supported"
    for step, needed in NEEDED.items():
        if values[step] and values[needed] is None:
            return f"{needed}: expected a value, because {step} is true, got null"
    if values["do_resize"] and values["resample"] not in FILTERS:
        known = ", ".join(f"{number} ({name})" for number, name in FILTERS.items() if number is not None)
        return f"resample: expected one of {known}, got {values['resample']}"
    if values["do_center_crop"] and not _both(values["crop_size"], square=True):
        return f"crop_size: expected height and width, got {shown(values['crop_size'])}"
    if values["do_resize"] and not (_both(values["size"], square=values["square"]) or _edge(values["size"])):
        return f"size: expected height and width, or shortest_edge, got {shown(values['size'])}"
    if values["do_center_crop"] and values["crop_first"] and not _both(values["size"], square=True):
        return f"size: expected height and width, got {shown(values['size'])}"
    if values["do_normalize"]:
        mean, std = (_channels(values[name] or ()) for name in ("image_mean", "image_std"))
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            return f"expected three means and three positive deviations, got {shown(mean)} and {shown(std)}"
    return ""


def _settings(values: Mapping[str, Any]) -> ImageSettings:
    size = _both(values["size"], square=values["square"])
    crop = _both(values["crop_size"], square=True) if values["do_center_crop"] else ()
    first = values["crop_first"] and bool(crop)
    return ImageSettings(
        crop=tuple(a / b for a, b in zip(size, crop, strict=True)) if first else (),
        size=size if values["do_resize"] else (),
        shortest_edge=None if size or not values["do_resize"] else _edge(values["size"]),
        filter=FILTERS[values["resample"]] if values["do_resize"] else "bicubic",
        center_crop=() if first else crop,
        scale=float(values["rescale_factor"]) if values["do_rescale"] else None,
        mean=_channels(values["image_mean"]) if values["do_normalize"] else (),
        std=_channels(values["image_std"]) if values["do_normalize"] else (),
    )


def _channels(value: Any) -> tuple[float, ...]:
    return tuple(map(float, value)) if isinstance(value, (list, tuple)) else (float(value),) * 3


def _both(size: Any, *, square: bool) -> tuple[int, ...]:
    """Height and width of a size as transformers writes it; none for another kind of size."""
    if isinstance(size, int):
        return (size, size) if square else ()
    if isinstance(size, dict):
        return (size["height"], size["width"]) if _named(size) == {"height", "width"} else ()
    return tuple(size or ())


def _edge(size: Any) -> int | None:
    """The shorter side of a size; None for another kind of size."""
    if isinstance(size, int):
        return size
    return size["shortest_edge"] if isinstance(size, dict) and _named(size) == {"shortest_edge"} else None


def _named(size: Mapping[str, Any]) -> set[str]:
    return {name for name, side in size.items() if side is not None}
