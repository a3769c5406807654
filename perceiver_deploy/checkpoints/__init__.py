"""Checkpoints of every supported origin, read into the reference models."""
