"""A session that is called back, or closed by another thread, answers with a UsageError and never waits for ever."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
import pytest
import tiny_bundles

from perceiver_runtime import Session, open_session
from perceiver_runtime.errors import UnavailableError, UsageError


@pytest.mark.parametrize("callback", ["record", "observe"])
def test_a_callback_that_runs_the_session(session: Session, callback: str) -> None:
    feeds = tiny_bundles.feeds()
    with pytest.raises(UsageError, match="does not run the session"):
        session.run(feeds, **{callback: lambda *_: session.run(feeds)})  # type: ignore[arg-type]
    seen: list[object] = []
    session.run(feeds, **{callback: lambda *arguments: seen.append(arguments)})  # type: ignore[arg-type]
    assert seen


def test_a_session_closed_while_others_run(bundle: Path) -> None:
    """Every size lays out a plan of its own, which takes the longest."""
    raised: list[BaseException] = []

    def run(session: Session, first: int) -> None:
        try:
            for keys in range(first, first + 32):
                session.run(tiny_bundles.feeds(keys=keys % 32 + 1))
        except BaseException as error:
            raised.append(error)

    for delay in range(10):
        session = open_session(bundle, threads=1)
        threads = [threading.Thread(target=run, args=(session, 8 * i)) for i in range(4)]
        for thread in threads:
            thread.start()
        threads[0].join(delay / 1000)
        session.close()
        for thread in threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in threads)
    assert raised
    assert {type(error) for error in raised} == {UsageError}


def test_an_interrupted_run_leaves_a_session_that_runs(session: Session) -> None:
    """Ctrl-C takes effect between the calls of components."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    expected = session.run(tiny_bundles.feeds())
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            session.run(tiny_bundles.feeds(), record=interrupt)
        for name, array in session.run(tiny_bundles.feeds()).items():
            np.testing.assert_array_equal(array, expected[name])


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_session_of_the_process_that_forked_this_one(bundle: Path, backend: str) -> None:
    """Refused at once, even while threads of the other process run; closing waits for nothing.

    A new one runs on ONNX Runtime; OpenVINO's threads stay behind, so that it would wait for ever: it says so.
    """
    pytest.importorskip(backend)
    feeds, stop = tiny_bundles.feeds(), threading.Event()

    def work() -> None:
        while not stop.is_set():
            session.run(feeds)

    with open_session(bundle, backend, threads=2) as session, session.caller() as caller:
        expected = session.run(feeds)["logits"]
        thread = threading.Thread(target=work)
        thread.start()
        child = os.fork()
        if child == 0:
            code = 1
            try:
                for run in (session.run, session.encode, caller.run):
                    with pytest.raises(UsageError, match="open one here, after the fork"):
                        run(feeds)
                with pytest.raises(UsageError, match="after the fork"):
                    session.caller()
                session.close()
                if backend == "openvino":
                    with pytest.raises(UnavailableError, match="forked from one that had used OpenVINO"):
                        open_session(bundle, backend)
                with open_session(bundle, "onnxruntime", threads=2) as own:
                    np.testing.assert_allclose(own.run(feeds)["logits"], expected, rtol=1e-4, atol=1e-5)
                code = 0
            finally:
                os._exit(code)
        stop.set()
        thread.join()
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert session.run(feeds)
