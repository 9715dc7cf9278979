"""The service as a process: connections, workers, and how it ends."""
