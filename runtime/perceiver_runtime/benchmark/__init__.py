"""Latency, throughput, memory and energy of sessions, with the conditions they were measured under."""
