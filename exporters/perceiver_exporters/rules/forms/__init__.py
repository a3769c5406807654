"""Rewrite rules that bring what people write to the one form that the other rules match."""
