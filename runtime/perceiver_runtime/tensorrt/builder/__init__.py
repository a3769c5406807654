"""Building TensorRT engines, on the workstation or on the device."""
