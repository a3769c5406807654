"""Self-test of a device: parity, latency, memory, energy, layers and telemetry in one file that can be passed on."""
