"""Golden samples: reference inputs and outputs, so that parity can be checked without the reference model.

Each sample is one safetensors file with these keys:

| Key | Content |
|---|---|
| `feeds/<input>` | input of the session |
| `values/<value>` | pipeline output or encoded value that the reference computes from `feeds` (chained) |
| `components/<component>/in/<graph input>` | reference input of one call of the component |
| `components/<component>/out/<graph output>` | output of the reference for these inputs (teacher-forced) |

For a repeated step the call is the first repetition, for a chunked step the first chunk. A tensor with several keys is
stored under the first; the metadata entry `same` is a JSON object that maps each other key to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from perceiver_runtime.bundle import Bundle
from perceiver_runtime.errors import BundleError
from perceiver_runtime.format import strict_json
from perceiver_runtime.format.safetensors import parse
from perceiver_runtime.tensors import Array

SAME = "same"


@dataclass(frozen=True)
class ComponentCall:
    """One execution of a component by the reference: graph inputs and outputs by name."""

    component: str
    inputs: Mapping[str, Array]
    outputs: Mapping[str, Array]


@dataclass(frozen=True)
class GoldenSample:
    """Session feeds, the reference's values for them, and one call of each component, by component name."""

    feeds: Mapping[str, Array]
    values: Mapping[str, Array]
    components: Mapping[str, ComponentCall]

    def tensors(self) -> dict[str, Array]:
        """The tensors of the sample by their keys in the file."""
        flat = {f"feeds/{name}": array for name, array in self.feeds.items()}
        flat |= {f"values/{name}": array for name, array in self.values.items()}
        for component, call in self.components.items():
            flat |= {f"components/{component}/in/{name}": array for name, array in call.inputs.items()}
            flat |= {f"components/{component}/out/{name}": array for name, array in call.outputs.items()}
        return flat


def sample_path(index: int) -> str:
    """Path of a sample inside its bundle."""
    return f"golden/sample-{index}.safetensors"


def load_golden(bundle: Bundle) -> tuple[GoldenSample, ...]:
    """Load the golden samples of a bundle.

    Args:
        bundle: A loaded bundle.

    Returns:
        All samples, in the order of the manifest.

    Raises:
        BundleError: The bundle has no golden samples, or one is damaged.
    """
    if not bundle.manifest.golden:
        raise BundleError(f"{bundle.path}: no golden samples; export again")
    return tuple(parse_sample(bundle.read(relative), bundle.file(relative)) for relative in bundle.manifest.golden)


def parse_sample(content: bytes, path: Path) -> GoldenSample:
    """Parse the content of the sample at `path`. Raises BundleError for an unknown key, or a key without a tensor."""
    feeds: dict[str, Array] = {}
    values: dict[str, Array] = {}
    parts: dict[tuple[str, str], dict[str, Array]] = {}
    for key, array in _tensors(content, path).items():
        match key.split("/", 3):
            case ["feeds", *rest] if rest:
                feeds["/".join(rest)] = array
            case ["values", *rest] if rest:
                values["/".join(rest)] = array
            case ["components", component, "in" | "out" as side, name]:
                parts.setdefault((component, side), {})[name] = array
            case _:
                raise BundleError(f"{path}: golden key {key!r}; expected feeds/, values/ or components/<name>/in|out/")
    components = {c: ComponentCall(c, parts.get((c, "in"), {}), parts.get((c, "out"), {})) for c, _ in parts}
    return GoldenSample(feeds, values, components)


def _tensors(content: bytes, path: Path) -> dict[str, Array]:
    """The tensors by every key that they have."""
    stored, metadata = parse(content, path)
    try:
        others = {key: stored[first] for key, first in strict_json.loads(metadata.get(SAME, "{}")).items()}
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise BundleError(
            f"{path}: metadata {SAME!r}: expected keys of tensors in the file, by key: {error}"
        ) from error
    return {**others, **stored}
