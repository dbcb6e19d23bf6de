"""The gateway of a Narupa session: existing clients join through it."""
