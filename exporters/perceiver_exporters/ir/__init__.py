"""Tracing to ONNX, and common operations on graphs: naming, shapes, costs, value ranges, insertion of nodes."""
