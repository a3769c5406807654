"""The short part of `python tests/faults/kills.py`; and several processes that write one path at the same time."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny_bundles
from engines.simulation.jetson import simulated_jetson
from faults.crashes import WHOLE, forked
from faults.kills import trial
from faults.writers import CONDITIONS, TARGET, tiny, writers

from perceiver_deploy.api import history
from perceiver_deploy.api.bench import BenchmarkReport
from perceiver_runtime.benchmark.statistics import Distribution
from perceiver_runtime.bundle import load_bundle
from perceiver_runtime.errors import UsageError
from perceiver_runtime.format.staging import staged

SHORT = 9
"""Faults of each writer."""
WRITERS = writers()
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


@pytest.mark.parametrize("name", [name for name in WRITERS if not name.startswith("bundle")])
def test_whatever_is_written_is_written_whole_or_not_at_all(name: str) -> None:
    """Exports are in the long part, and in tests/exporters/test_staging.py."""
    found = trial(WRITERS[name], SHORT)
    assert (found.half, found.leftovers, found.untyped) == ([], [], [])
    assert found.kills > 1
    assert found.errors > 1


def together(*actions: Callable[[], object]) -> None:
    """Run each action in a process of its own, at the same time."""
    children = []
    for action in actions:
        child = os.fork()
        if child == 0:
            os._exit(forked(action))
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [WHOLE] * len(children)


def test_engines_of_two_builds_at_the_same_time_are_all_kept(tmp_path: Path) -> None:
    """The later one is refused, and its engines are in the bundle when it is repeated."""
    jetson, path = simulated_jetson(), tiny(tmp_path)

    def build(target: str) -> None:
        built = False
        while not built:
            with contextlib.suppress(UsageError):
                jetson.build(path, target)
                built = True

    names = (TARGET, "orin-2", "orin-3")
    together(*(lambda target=target: build(target) for target in names))
    files = load_bundle(path).manifest.files
    assert {name.split("/")[1] for name in files if name.startswith("engines/")} == set(names)
    assert [entry.name for entry in tmp_path.iterdir()] == ["bundle"]


def test_no_result_of_a_history_is_lost(tmp_path: Path) -> None:
    result = BenchmarkReport(
        "b", "onnxruntime", "fp32", 1, 1, Distribution.of((0.1, 0.2)), {}, {}, None, "", CONDITIONS
    )

    def append() -> None:
        for _ in range(10):
            history.append(tmp_path / "history.jsonl", [result])

    together(append, append, append)
    assert len(history.read(tmp_path / "history.jsonl")) == 30
    assert [entry.name for entry in tmp_path.iterdir()] == ["history.jsonl"]


def test_readers_of_a_path_that_several_write_see_whole_bundles(tmp_path: Path) -> None:
    path, models = tmp_path / "bundle", [tiny_bundles.full_model(seed) for seed in range(2)]
    made = [tiny_bundles.write(tmp_path / str(i), model, tiny_bundles.feeds()) for i, model in enumerate(models)]
    digests = {load_bundle(each).manifest.digest for each in made}

    def write(source: Path) -> None:
        for _ in range(5):
            with staged(path, overwrite=True) as partial:
                shutil.copytree(source, partial, dirs_exist_ok=True)

    def read() -> None:
        for _ in range(20):
            with load_bundle(path) as bundle:
                assert bundle.manifest.digest in digests

    write(made[0])
    together(*(lambda source=source: write(source) for source in made), read)
    assert load_bundle(path).manifest.digest in digests
