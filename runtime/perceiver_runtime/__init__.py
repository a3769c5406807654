"""Open, run, verify and time a bundle. NumPy and one backend; never torch."""
