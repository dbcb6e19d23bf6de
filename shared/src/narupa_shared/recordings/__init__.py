"""Recordings of sessions: frames and changes of the shared state, each at its time since the start."""
