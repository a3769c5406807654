"""Download a checkpoint from the Hugging Face hub to its local cache; only done for a hub id."""

from __future__ import annotations

import re
from pathlib import Path

from perceiver_deploy.checkpoints.files.tensors import WEIGHT_FILES
from perceiver_deploy.checkpoints.loaded import LoadOptions
from perceiver_runtime.errors import CheckpointError, UnavailableError

CONFIGS = ("config.json", "preprocessor_config.json", "tokenizer_config.json", "special_tokens_map.json")
SAFE = (*CONFIGS, "*.safetensors", "*.safetensors.index.json")
PICKLED = (*CONFIGS, "pytorch_model*.bin", "pytorch_model.bin.index.json")


def is_hub_id(source: str) -> bool:
    """Whether a source has the form `owner/name`; `./name` and `../name` are paths."""
    return re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", source) is not None


def snapshot(model_id: str, options: LoadOptions) -> Path:
    """The local directory of a hub model, downloaded if need be: safetensors if it has them, else `.bin` files.

    Raises UnavailableError without huggingface_hub or without the files, CheckpointError if it has no weights.
    """
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
    except ImportError as error:
        raise UnavailableError(
            f"{model_id}: no such directory, and reading it as a hub id needs huggingface_hub; "
            "`pip install 'perceiver-deploy[hub]'`, or give a checkpoint directory"
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
        except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
            raise UnavailableError(
                f"{model_id}: no such directory, and as a hub id {_place(options)}; {error}; "
                "download it where there is a network, or give a checkpoint directory"
            ) from error
        if any((Path(path) / name).is_file() for name in WEIGHT_FILES):
            return Path(path)
    raise CheckpointError(f"{model_id}: expected one of {', '.join(WEIGHT_FILES)} in {path}, found none of them")


def _place(options: LoadOptions) -> str:
    revision = f" at revision {options.revision}" if options.revision else ""
    return ("not in the local cache" if options.local_files_only else "neither reachable nor in the cache") + revision
