"""The trajectory service: runs one source and streams its frames to everyone."""
