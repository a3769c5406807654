"""Data of the user's own: sources of labelled samples, read as streams, and the samples that are drawn from them.

A new kind of source is a class with the methods of `source.Source`, and a line in `open.py`.
"""
