"""Sizes of a hybrid model, in frozen data: every width, depth and choice of its parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from perceiver_deploy.models.config import PerceiverConfig

Cell = Literal["lstm", "gru", "rnn"]
Combine = Literal["multiply", "add", "concat"]
Refinement = Literal["channel_attention", "frequency_attention", "channel_linear"]
Modality = Literal["image", "text"]


@dataclass(frozen=True)
class FeatureConfig:
    """What happens to a modality's features before they meet the others.

    `positions` says how sinusoidal positions are combined with them; `refinements` are applied in that
    order; `groups` is the number of channel groups of `channel_linear`.
    """

    positions: Combine = "add"
    refinements: tuple[Refinement, ...] = ()
    groups: int = 1


@dataclass(frozen=True)
class ImageConfig:
    """Images (channels, height, width) through one 3x3 convolution per width and stride.

    `global_dims` are the widths of the fully connected layers that make the global feature.
    """

    channels: int
    height: int
    width: int
    widths: tuple[int, ...]
    strides: tuple[int, ...]
    global_dims: tuple[int, ...]
    features: FeatureConfig = FeatureConfig()

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the feature map; same padding divides by the stride, rounding up."""
        rows, columns = self.height, self.width
        for stride in self.strides:
            rows, columns = -(-rows // stride), -(-columns // stride)
        return rows, columns

    @property
    def tokens(self) -> int:
        """Tokens of one image: the feature map's cells, and the global feature."""
        return self.grid[0] * self.grid[1] + 1


@dataclass(frozen=True)
class TextConfig:
    """Token ids (up to `length`, 0 is padding) through a recurrent encoder."""

    vocabulary: int
    length: int
    embedding: int
    hidden: int
    layers: int = 1
    cell: Cell = "lstm"
    bidirectional: bool = True
    features: FeatureConfig = FeatureConfig()

    @property
    def dim(self) -> int:
        """Width of the features."""
        return self.hidden * (2 if self.bidirectional else 1)


@dataclass(frozen=True)
class ClassifierConfig:
    """A head that gives logits (B, classes) under its own name."""

    name: str
    classes: int


@dataclass(frozen=True)
class RegressorConfig:
    """A head that gives numbers (B, targets) under its own name; `scale` and `offset` undo the training's scaling."""

    name: str
    targets: int = 1
    scale: float = 1.0
    offset: float = 0.0


@dataclass(frozen=True)
class GeneratorConfig:
    """A head that gives a sequence of ids under its own name.

    Ids `start` and `stop` open and close a sequence of at most `length` ids, `stop` included.
    """

    name: str
    vocabulary: int
    length: int
    embedding: int
    hidden: int
    layers: int = 1
    cell: Cell = "lstm"
    start: int = 1
    stop: int = 2


@dataclass(frozen=True)
class HybridConfig:
    """A trunk (encoders, interaction, latents) and its heads.

    `perceiver.decoder` sizes the cross-attention by which every head asks the latents, with a query of
    `query_dim`. `optional` names the modalities that may be missing at run time.
    """

    interaction_dim: int
    query_dim: int
    perceiver: PerceiverConfig
    image: ImageConfig | None = None
    text: TextConfig | None = None
    optional: tuple[Modality, ...] = ()
    classifiers: tuple[ClassifierConfig, ...] = ()
    regressors: tuple[RegressorConfig, ...] = ()
    generators: tuple[GeneratorConfig, ...] = ()

    @property
    def dynamic_length(self) -> bool:
        """Whether texts of any length up to the configured one are taken, or only texts padded to that length.

        A constant DFT matrix fits one length alone, and a text that may be missing has no length to go by.
        """
        refinements = () if self.text is None else self.text.features.refinements
        return "text" not in self.optional and "frequency_attention" not in refinements

    @property
    def heads(self) -> tuple[str, ...]:
        """Names of all heads."""
        heads: tuple[ClassifierConfig | RegressorConfig | GeneratorConfig, ...]
        heads = (*self.classifiers, *self.regressors, *self.generators)
        return tuple(head.name for head in heads)
