"""Proof that a graph, and ONNX Runtime's form of it, compute in the precision of their label."""
