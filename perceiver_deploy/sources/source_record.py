"""Where the source of a bundle was found on this machine; `bisect`, `evaluate` and `bench` need it again.

The record is stored beside the bundle, never in it: bundles hold no paths. What is found at the recorded place is taken
only if its weights have the recorded hash.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from perceiver_deploy.checkpoints import LoadOptions
from perceiver_deploy.sources.origin import Origin
from perceiver_runtime.errors import BundleError
from perceiver_runtime.format import schema, strict_json
from perceiver_runtime.format.outputs import replacing


@dataclass(frozen=True)
class SourceRecord:
    """An absolute path, a hub id with its revision and cache, or code, and the hash of the weights found there.

    `data` is the absolute path of the data that the bundle was made with, if they are files.
    """

    weights_sha256: str
    source: str
    revision: str | None = None
    cache_dir: str | None = None
    data: str | None = None


def record_path(bundle: Path) -> Path:
    """Path of the record of a bundle."""
    return bundle.resolve().with_name(f"{bundle.resolve().name}.source.json")


def write_record(
    bundle: Path, weights_sha256: str, origin: Origin, options: LoadOptions, data: Path | None = None
) -> None:
    """Record where a bundle's source and data were found; a model of the zoo is found by its name. Raises OSError."""
    path = record_path(bundle)
    if origin.entry is not None and data is None:
        path.unlink(missing_ok=True)
        return
    cache = None if options.cache_dir is None else str(Path(options.cache_dir).absolute())
    source = code_place(origin.code) or origin.name
    if origin.directory is not None:
        source = str(origin.directory.absolute())
    place = None if data is None else str(data.absolute())
    record = SourceRecord(weights_sha256, source, options.revision, cache, place)
    with replacing(path, follow=False) as partial:
        partial.write_text(strict_json.dumps(schema.encode(record)) + "\n", encoding="utf-8")


def code_place(code: str) -> str:
    """Code as it can be named from any directory; empty if there is none."""
    place, colon, function = code.rpartition(":")
    return f"{Path(place).absolute()}:{function}" if colon and place.endswith(".py") else code


def read_record(bundle: Path) -> SourceRecord | None:
    """The record of a bundle, if there is one. Raises BundleError if it can't be read."""
    path = record_path(bundle)
    if not path.is_file():
        return None
    try:
        content = strict_json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise BundleError(f"{path}: no valid JSON ({error}); remove it, or name the source with --reference") from error
    return schema.decode(SourceRecord, content, str(path))
