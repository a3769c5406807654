"""Backends: one module each, the same protocol."""
