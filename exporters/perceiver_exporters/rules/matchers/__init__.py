"""Recognising attention, linear layers, grid positions and table lookups in a traced graph."""
