"""A session that is called back, or closed by another thread, answers with a UsageError and never waits for ever."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import tiny_bundles

from perceiver_runtime import Session, open_session
from perceiver_runtime.errors import UsageError


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
