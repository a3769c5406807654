"""Progress as bars on a terminal; elsewhere as lines."""

from __future__ import annotations

import logging
import sys
from time import monotonic

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from perceiver_runtime.cli.progress import ProgressLines, finished
from perceiver_runtime.escapes import printable
from perceiver_runtime.progress import Done

REFRESH_S = 0.1


def progress_handler() -> logging.Handler:
    """Bars where stderr is a terminal, else lines."""
    return ProgressBars(Console(stderr=True, highlight=False)) if sys.stderr.isatty() else ProgressLines()


class ProgressBars(ProgressLines):
    """A bar for each counted work that is under way, below the lines of what is done.

    Bars are drawn by the records alone: a thread that drew them would disturb what a benchmark measures.
    """

    def __init__(self, console: Console) -> None:
        super().__init__()
        self.bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
        )
        self.tasks: dict[str, TaskID] = {}
        self.drawn = 0.0

    def count(self, done: Done) -> None:
        """Draw, move or take away the bar of a work."""
        what = done.what
        if done.done == done.total:
            if what in self.tasks:
                self.bars.remove_task(self.tasks.pop(what))
            if not self.tasks:
                self.bars.stop()
            self.line(finished(done, self.started))
        elif what not in self.tasks:
            self.started[what] = monotonic()
            self.bars.start()
            self.tasks[what] = self.bars.add_task(printable(what), total=done.total, completed=done.done)
        else:
            self.bars.update(self.tasks[what], completed=done.done)
        if self.tasks and monotonic() - self.drawn > REFRESH_S:
            self.bars.refresh()
            self.drawn = monotonic()

    def line(self, text: str) -> None:
        """Write one line above the bars."""
        self.bars.console.print(printable(text), style="dim", markup=False)

    def close(self) -> None:
        """Take the bars away and give the terminal its cursor back, also after an interruption."""
        self.bars.stop()
        super().close()
