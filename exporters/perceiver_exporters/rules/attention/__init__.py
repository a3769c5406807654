"""Rewrite rules on attention."""
