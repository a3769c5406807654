"""Checkpoints of krasserm/perceiver-io."""

from perceiver_deploy.checkpoints.krasserm.checkpoint import KINDS, REPEATED, load, recognises

__all__ = ["KINDS", "REPEATED", "load", "recognises"]
