"""Descriptions of a bundle's engines, for `inspect` and the model card."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from perceiver_runtime.bundle import Bundle
from perceiver_runtime.tensorrt.backend import engine_targets
from perceiver_runtime.tensorrt.sidecar import Sidecar, parse_sidecar, read_sidecar, sidecar_path

MODEL_CARD = "README.md"
_SECTION = re.compile(r"\n## Engines\n.*?(?=\n## |\Z)", re.DOTALL)


@dataclass(frozen=True)
class Engines:
    """The engines for one target: what built them, and the GPUs that they run on."""

    target: str
    module: str
    tensorrt: str
    compute_capabilities: tuple[str, ...]
    version_compatible: bool
    components: int

    def __str__(self) -> str:
        newer = " or newer" if self.version_compatible else ""
        return (
            f"{self.target}: {self.module} {self.tensorrt}{newer}, compute capability "
            f"{', '.join(self.compute_capabilities)}, {self.components} components"
        )


def engines_of(bundle: Bundle) -> tuple[Engines, ...]:
    """The engines of a bundle, by target. Raises BundleError for a damaged sidecar."""
    names = [component.name for component in bundle.manifest.components]
    found = {
        target: [
            parse_sidecar(bundle.read(path), bundle.file(path))
            for path in (sidecar_path(target, name) for name in names)
            if path in bundle.manifest.files
        ]
        for target in engine_targets(bundle)
    }
    return _engines(found)


def engines_in(directory: Path, components: Sequence[str]) -> tuple[Engines, ...]:
    """The engines of a bundle that is being written, by target."""
    folders = sorted(path for path in (directory / "engines").glob("*") if path.is_dir())
    return _engines(
        {
            folder.name: [
                read_sidecar(path)
                for path in (directory / sidecar_path(folder.name, name) for name in components)
                if path.is_file()
            ]
            for folder in folders
        }
    )


def describe_in_model_card(directory: Path, lines: Iterable[str]) -> None:
    """Add or replace the section on engines of the model card in a directory, if there is one."""
    path = directory / MODEL_CARD
    if not path.is_file():
        return
    text = _SECTION.sub("", path.read_text(encoding="utf-8", errors="surrogateescape")).rstrip("\n")
    path.unlink()  # it may be a link to another bundle's card
    content = "\n".join((text, "", "## Engines", "", *lines, ""))
    path.write_text(content, encoding="utf-8", errors="surrogateescape")


def model_card_lines(found: Sequence[Engines]) -> tuple[str, ...]:
    """Lines of the model card on existing engines."""
    listed = (f"- `{each.target}`:{str(each).removeprefix(each.target).removeprefix(':')}" for each in found)
    return *listed, "", "`open_session(bundle)` runs them where TensorRT and GPU are these; `session.runs_on` says so."


def _engines(sidecars: Mapping[str, Sequence[Sidecar]]) -> tuple[Engines, ...]:
    return tuple(
        Engines(
            target,
            found[0].module,
            found[0].tensorrt,
            found[0].compute_capabilities,
            all(sidecar.version_compatible for sidecar in found),
            len(found),
        )
        for target, found in sidecars.items()
        if found
    )
