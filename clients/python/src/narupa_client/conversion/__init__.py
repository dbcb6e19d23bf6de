"""Recordings of sessions to and from the files that molecular simulation programs read."""
