"""Quantization to integers: schemes, layers, plans and Q/DQ nodes."""
