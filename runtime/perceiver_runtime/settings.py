"""Settings of a model's processing, as the manifest stores them: what its checkpoint states. `processing` applies them.

They are frozen data without behaviour, so that reading a manifest loads nothing of `processing`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Filter = Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]
PixelFormat = Literal["float", "uint8", "nv12"]
Task = Literal["classes", "numbers", "tokens", "flow"]


@dataclass(frozen=True)
class ImageSettings:
    """How an image of 8 bits becomes an input. The steps in this order; a step whose field is empty is left out.

    Attributes:
        input: Input of the model that takes images.
        channels: 3 for RGB, 1 for grey.
        crop: Height and width of the centre that is kept, as fractions of the shorter side.
        size: Height and width that the image is resized to.
        shortest_edge: Instead of `size`: the shorter side is resized to this, the other in proportion.
        filter: How it is resampled.
        center_crop: Height and width that are cut out of the middle; zeros surround a smaller image.
        scale: Factor of the pixels.
        mean: Mean of each channel, which is subtracted.
        std: Standard deviation of each channel, which divides.
        format: What the model takes: `float` (batch, channels, height, width); or frames of 8 bits as cameras give
            them, which the graph itself processes: `uint8` (batch, height, width, channels), or `nv12`
            (batch, height * 3 / 2, width).
    """

    input: str = "pixel_values"
    channels: int = 3
    crop: tuple[float, ...] = ()
    size: tuple[int, ...] = ()
    shortest_edge: int | None = None
    filter: Filter = "bicubic"
    center_crop: tuple[int, ...] = ()
    scale: float | None = 1 / 255
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    format: PixelFormat = "float"


@dataclass(frozen=True)
class TextSettings:
    """How a text becomes ids: its UTF-8 bytes, between special tokens.

    Attributes:
        input: Input of the model that takes ids.
        attention_mask: Input that is 1 for tokens and 0 for padding; empty for a model without one.
        special_tokens: Special tokens by id, as they may be written in a text; empty where none may.
        offset: The id of a byte is its value and this.
        prefix: Ids before the text.
        suffix: Ids after the text.
        padding: Id after the end of shorter texts.
        mask: Id that stands for a masked byte; None for a model that fills none in.
        max_length: Largest number of ids, prefix and suffix included.
        truncation: Whether the end of a longer text is cut off; otherwise it is refused.
    """

    input: str = "input_ids"
    attention_mask: str = ""
    special_tokens: tuple[str, ...] = ()
    offset: int = 0
    prefix: tuple[int, ...] = ()
    suffix: tuple[int, ...] = ()
    padding: int = 0
    mask: int | None = None
    max_length: int = 2048
    truncation: bool = False


@dataclass(frozen=True)
class FlowSettings:
    """How pairs of frames become the `input`: tiles share `overlap` pixels; flow is `scale` times the output."""

    input: str = "inputs"
    overlap: int = 20
    scale: float = 20.0


@dataclass(frozen=True)
class ClipSettings:
    """The inputs that take the frames and the samples of a clip."""

    video: str = "image"
    audio: str = "audio"


@dataclass(frozen=True)
class OutputSettings:
    """What an output is: scores of classes, which `labels` name; numbers; scores of tokens; flow."""

    task: Task
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Processing:
    """The processing of all inputs and outputs of a model.

    Attributes:
        image: Of an image input, if there is one.
        text: Of a text input.
        flow: Of pairs of frames.
        clip: Of video with sound.
        outputs: Outputs by name.
        refusal: Why the model's processing is not known, or can't be done; using it raises this.
        origin: Where the settings were found.
    """

    image: ImageSettings | None = None
    text: TextSettings | None = None
    flow: FlowSettings | None = None
    clip: ClipSettings | None = None
    outputs: Mapping[str, OutputSettings] = field(default_factory=dict)
    refusal: str = ""
    origin: str = ""
