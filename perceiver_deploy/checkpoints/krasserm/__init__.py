"""Checkpoints of krasserm/perceiver-io."""

from perceiver_deploy.checkpoints.krasserm.checkpoint import KINDS, load, recognises

__all__ = ["KINDS", "load", "recognises"]
