"""Perceivers that others published, exported as their packages have them: no family, no copied code."""
