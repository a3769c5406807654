"""Roofline: work of a bundle's components, ceilings of a machine, shares of them, and forecasts for boards."""
