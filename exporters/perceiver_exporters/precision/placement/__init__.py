"""Placement: layers in FP32 that hold an accuracy budget."""
