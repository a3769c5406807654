"""Checkpoints of lucidrains/perceiver-pytorch."""

from perceiver_deploy.checkpoints.lucidrains.checkpoint import KINDS, load, recognises

__all__ = ["KINDS", "load", "recognises"]
