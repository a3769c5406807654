"""A loop that keeps time around a session: the newest frame wins, and what comes late is counted."""

from perceiver_runtime.loop.clock import Clock, paced
from perceiver_runtime.loop.histogram import LatencySummary
from perceiver_runtime.loop.loop import Frame, Loop, LoopReport
from perceiver_runtime.loop.watchdog import Hang

__all__ = ["Clock", "Frame", "Hang", "LatencySummary", "Loop", "LoopReport", "paced"]
