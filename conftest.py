"""Every test of the repository runs under the same fixtures and leak checks."""

pytest_plugins = ["narupa_shared.testing.plugin"]
