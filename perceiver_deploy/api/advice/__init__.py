"""Advice: which precision and backend to use within limits of latency, accuracy and memory."""
