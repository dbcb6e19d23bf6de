"""The imd service of a Narupa session: interactions (who pulls what) and the shared state."""
