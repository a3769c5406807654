"""What belongs to one process stays there, and the environment gives graphs no options."""

from __future__ import annotations

import copy as copying
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
import tiny_bundles

from perceiver_runtime import Session, UsageError, load_bundle


def test_sessions_bundles_and_callers_are_not_pickled(bundle: Path, session: Session) -> None:
    for held in (session, session.bundle, session.caller()):
        with pytest.raises(UsageError, match="can't be pickled or copied; pass the bundle's path"):
            pickle.dumps(held)
        with pytest.raises(UsageError, match="can't be pickled or copied"):
            copying.deepcopy(held)
    with pytest.raises(UsageError, match="Session: can't be"):
        copying.copy(session)
    with load_bundle(bundle) as loaded:
        assert pickle.loads(pickle.dumps(loaded.manifest)) == loaded.manifest


def test_a_graph_sets_no_options_whatever_the_environment_says(copy: Path, tmp_path: Path) -> None:
    """ONNX Runtime would write a profile to the working directory."""
    for path in copy.glob("onnx/*.onnx"):
        graph = onnx.load(path)
        graph.metadata_props.add(key="ort_config", value=json.dumps({"session_options": {"enable_profiling": 1}}))
        onnx.save(graph, path)
        tiny_bundles.rehash(copy, f"onnx/{path.name}")
    there = tmp_path / "there"
    there.mkdir()
    environment = {**os.environ, "ORT_LOAD_CONFIG_FROM_MODEL": "1"}
    command = [sys.executable, "-m", "perceiver_runtime", "verify", str(copy), "--backend", "onnxruntime"]
    subprocess.run(command, cwd=there, env=environment, check=True, capture_output=True, timeout=120)
    assert not list(there.iterdir())
