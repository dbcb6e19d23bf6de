"""Measurements of what the services cost and deliver; each prints its figures. `make bench` runs them all."""
