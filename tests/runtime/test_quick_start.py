"""`onnxruntime-quick` answers at once, and from the packed weights as soon as they are there."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_bundles
from tiny_bundles import Model

from perceiver_runtime import BundleError, Session, load_bundle, open_session, verify
from perceiver_runtime.backends import open_backend

NAME = "onnxruntime-quick"


class Held:
    """A pool whose jobs are done when the test says so."""

    def __init__(self) -> None:
        self.jobs: list[tuple[Future[Any], Any]] = []

    def submit(self, function: Any, *arguments: Any) -> Future[Any]:
        self.jobs.append((Future(), lambda: function(*arguments)))
        return self.jobs[-1][0]

    def finish(self) -> None:
        for future, job in self.jobs:
            future.set_result(job())


@pytest.fixture
def held(bundle: Path) -> Any:
    backend, pool = open_backend(NAME, threads=1), Held()
    backend._packing = pool  # type: ignore[attr-defined]
    with Session(load_bundle(bundle), backend, 1) as session:
        yield session, pool


def test_answers_before_and_after_packing(held: tuple[Session, Held], model: Model) -> None:
    session, pool = held
    feeds = tiny_bundles.feeds(2)
    expected = tiny_bundles.reference(model, feeds)
    before = session.run(feeds)
    first = {name: graph.session() for name, graph in session._executables.items()}  # type: ignore[attr-defined]
    pool.finish()
    after = session.run(feeds)
    for name, graph in session._executables.items():
        assert graph.session() is not first[name]  # type: ignore[attr-defined]
        assert graph._later is None  # type: ignore[attr-defined]
    for name, array in before.items():
        np.testing.assert_allclose(array, expected[name], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(after[name], expected[name], rtol=1e-4, atol=1e-5)


def test_a_plan_made_before_runs_the_packed_session(held: tuple[Session, Held]) -> None:
    session, pool = held
    feeds = tiny_bundles.feeds()
    session.run(feeds)
    pool.finish()
    session.run(feeds)
    ((plan,),) = (lane.plans.values() for lane in session._lanes._idle)
    bound = [o.call.__closure__[0].cell_contents.__self__ for o in plan._operations if o.activity.kind == "component"]
    assert all(b._session is b._graph.session() for b in bound)


def test_failure_in_the_background_is_raised(held: tuple[Session, Held]) -> None:
    session, pool = held
    session.run(tiny_bundles.feeds())
    for future, _ in pool.jobs:
        future.set_exception(BundleError("no memory"))
    with pytest.raises(BundleError, match="no memory"):
        session.run(tiny_bundles.feeds())


def test_weights_are_packed_later(bundle: Path) -> None:
    """With the real pool: the second session has the options of a plain one."""
    with open_session(bundle, NAME, threads=1) as session:
        graphs: Any = session._executables.values()
        later = [graph._later for graph in graphs]
        assert all(
            graph._session.get_session_options().get_session_config_entry("session.disable_prepacking") == "1"
            for graph in graphs
        )
        packed = [future.result() for future in later]
        for options in (each.get_session_options() for each in packed):
            assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
            with pytest.raises(RuntimeError):
                options.get_session_config_entry("session.disable_prepacking")
        assert verify(session).passed
