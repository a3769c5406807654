"""Fetch a checkpoint from the Hugging Face hub into its local cache. Only ever done when a hub id is given."""

from __future__ import annotations

import re
from pathlib import Path

from perceiver_deploy.checkpoints.loaded import LoadOptions
from perceiver_deploy.checkpoints.tensors import WEIGHT_FILES
from perceiver_runtime.errors import CheckpointError, UnavailableError

SAFE = ("config.json", "*.safetensors", "*.safetensors.index.json")
PICKLED = ("config.json", "pytorch_model*.bin", "pytorch_model.bin.index.json")


def is_hub_id(source: str) -> bool:
    """Whether a source reads like `owner/name`."""
    return re.fullmatch(r"[\w.-]+/[\w.-]+", source) is not None


def snapshot(model_id: str, options: LoadOptions) -> Path:
    """The local directory of a hub model, downloaded if need be: safetensors if it has them, else `.bin` files.

    Raises UnavailableError without huggingface_hub or without the files, CheckpointError if it has no weights.
    """
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
    except ImportError as error:
        raise UnavailableError(
            f"{model_id}: reading a hub id needs huggingface_hub; `pip install huggingface_hub`, or give a directory"
        ) from error
    for patterns in (SAFE, PICKLED):
        try:
            path = snapshot_download(
                model_id,
                revision=options.revision,
                cache_dir=options.cache_dir,
                local_files_only=options.local_files_only,
                allow_patterns=list(patterns),
            )
        except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
            raise UnavailableError(
                f"{model_id}: not reachable and not in the local cache; {error}; give a directory instead"
            ) from error
        if any((Path(path) / name).is_file() for name in WEIGHT_FILES):
            return Path(path)
    raise CheckpointError(f"{model_id}: expected one of {', '.join(WEIGHT_FILES)}, the repository has none of them")
