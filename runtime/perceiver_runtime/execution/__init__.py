"""Sessions: choosing a backend, planning the execution of a pipeline, and running it."""
