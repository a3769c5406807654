"""Checkpoints: configs, pickles, safetensors, indices of shards."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from fuzz.targets.reading import OfBytes, OfJson, Once, Prepare


def config(folder: Path) -> Once:
    """Config of a small checkpoint, with its right weights."""
    from perceiver_deploy.checkpoints import load
    from perceiver_deploy.zoo import ZOO_DIRECTORY

    path = Path(shutil.copytree(ZOO_DIRECTORY / "fashion-perceiver", folder / "checkpoint"))

    def read(record: Any) -> None:
        (path / "config.json").write_text(json.dumps(record))
        load(path)

    return OfJson(json.loads((path / "config.json").read_text()), read)


def weights(suffix: str) -> Prepare:
    def prepare(folder: Path) -> Once:
        import torch
        from safetensors.torch import save_file

        from perceiver_deploy.checkpoints.files.tensors import read_tensors

        path = folder / f"model.{suffix}"
        tensors = {"a.weight": torch.ones(2, 3), "a.bias": torch.zeros(3)}
        if suffix == "pt":
            torch.save(tensors, path)
        else:
            save_file(tensors, path)

        def read(data: bytes) -> None:
            path.write_bytes(data)
            read_tensors(path)

        return OfBytes((path.read_bytes(),), read)

    return prepare


def shards(folder: Path) -> Once:
    import torch
    from safetensors.torch import save_file

    from perceiver_deploy.checkpoints.files.tensors import read_tensors

    save_file({"a.weight": torch.ones(2, 3)}, folder / "one.safetensors")
    path = folder / "model.safetensors.index.json"

    def read(record: Any) -> None:
        path.write_text(json.dumps(record))
        read_tensors(path)

    return OfJson({"metadata": {"total_size": 24}, "weight_map": {"a.weight": "one.safetensors"}}, read)
