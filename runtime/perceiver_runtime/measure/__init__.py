"""Verdicts on numbers: comparison with golden samples, and the tolerances that it uses."""
