"""Tracing to ONNX, and what is common to all work on graphs."""
