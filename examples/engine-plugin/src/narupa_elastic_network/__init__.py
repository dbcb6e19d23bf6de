"""Elastic-network models of proteins, as an engine of Narupa's trajectory service."""
