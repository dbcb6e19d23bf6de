"""The engine: one source, run in a process of its own, and the supervisor that keeps it running."""
