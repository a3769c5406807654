"""Rewrite rules on linear layers: folded into one another, packed, padded."""
