"""Measured numbers with a verdict: parity with golden samples, and latency."""
