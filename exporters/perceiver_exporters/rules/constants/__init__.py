"""Rewrite rules that compute at export what depends on constants alone."""
